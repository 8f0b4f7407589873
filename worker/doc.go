// Package worker registers the workflows and activities on Temporal workers and
// prepares the namespace for them. What a worker does is in packages workflows and
// activities; the only logic here is who may ask for an activity (guard.go).
package worker
