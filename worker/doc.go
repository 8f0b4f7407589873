// Package worker registers the workflows and activities on Temporal workers and
// prepares the namespace for them. It holds no logic but who may ask for an activity
// (guard.go): what a worker does is in packages workflows and activities.
package worker
