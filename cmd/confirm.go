package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/term"
)

// confirm shows in a line what is about to be done, and asks a person whether to do it. With
// yes it does not ask. It returns an error if the answer is no, and if there is no terminal,
// and so nobody to ask. The error names what was not done: done, such as "started".
func (e *environment) confirm(ctx context.Context, yes bool, what, question, done string) error {
	switch {
	case yes:
		fmt.Fprintln(e.stderr, what)
		return nil
	case !term.IsTerminal(int(e.stdin.Fd())):
		return fmt.Errorf("%s Nothing was %s: there is no terminal to ask on; give --yes", what, done)
	}
	fmt.Fprintf(e.stderr, "%s\n%s [y/N] ", what, question)
	answer := make(chan string, 1)
	go func() { // outlives an interruption: nothing but the end of the process ends the read then
		line, _ := bufio.NewReader(e.stdin).ReadString('\n') // an end of input is no yes
		answer <- line
	}()
	select {
	case <-ctx.Done():
		return errors.New("interrupted; nothing was " + done)
	case line := <-answer:
		if a := strings.ToLower(strings.TrimSpace(line)); a == "y" || a == "yes" {
			return nil
		}
		return errors.New("nothing was " + done)
	}
}
