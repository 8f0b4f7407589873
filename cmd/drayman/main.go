// Command drayman is the program: see package cmd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"drayman/cmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cmd.Run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
