// Package cmd is the command line of Drayman: it reads the configuration, wires
// the packages together and runs them. One file a command; nothing else in the
// module reads the environment.
//
//	drayman migrate up | status   the database's schema
//	drayman api                   the HTTP API
//	drayman worker                the Temporal worker
//	drayman serve                 both in one process
//	drayman healthcheck           whether the API of this machine is ready
//	drayman version
//
// It is a package, and not the main package itself, so that the program for
// development (module drayman/dev) runs the same commands in its own process.
//
// Each flag has an environment twin: its name in capitals, with underscores. A
// flag tagged secret can also come from the file that NAME_FILE names. The
// connection to Temporal is configured by TEMPORAL_* and temporal.toml alone,
// see go.temporal.io/sdk/contrib/envconfig.
package cmd
