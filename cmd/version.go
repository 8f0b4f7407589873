package cmd

import (
	"fmt"
	"runtime/debug"
)

// Version is set by the build: -ldflags "-X drayman/cmd.Version=1.2.3".
var Version = "dev"

type versionCommand struct{}

// Run shows the version and the commit that it was built from.
func (versionCommand) Run(env *environment) error {
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	_, err := fmt.Fprintf(env.stdout, "drayman %s (commit %s)\n", Version, revision)
	return err
}
