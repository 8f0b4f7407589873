// Package cmd is the command line of Drayman: it reads the configuration, wires
// the packages together and runs them. One file a command; nothing else in the
// module reads the environment.
//
//	drayman migrate up | status   the database's schema
//	drayman api                   the HTTP API
//	drayman worker                the Temporal worker
//	drayman serve                 both in one process
//	drayman run COMMAND           billing runs, through the HTTP API: start, watch,
//	                              pause, resume, cancel, pace, report, list
//	drayman schedule COMMAND      the monthly start, in Temporal: apply, show, pause,
//	                              resume, remove, backfill
//	drayman healthcheck           whether the API of this machine is ready
//	drayman version
//
// It is a package, and not the main package itself, so that the program for
// development (module drayman/dev) runs the same commands in its own process.
//
// Each flag has an environment twin: its name in capitals, with underscores. A
// flag tagged secret can also come from the file that NAME_FILE names; one tagged
// once belongs to one call and has no twin. The connection to Temporal is
// configured by TEMPORAL_* and temporal.toml alone, see
// go.temporal.io/sdk/contrib/envconfig.
//
// Exit codes: 0 done well, 1 an error, 2 usage or a wrong setting; of the commands
// on billing runs also
//
//	3     watch: the run has ended cancelled or abandoned
//	4     watch: it has finished and left some pending or unresolved;
//	      report: the month is not closed
//	130   watch: interrupted; the run goes on
package cmd
