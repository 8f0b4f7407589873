// Package worker registers the workflows and activities on Temporal workers and
// prepares the namespace for them. It holds no logic: what a worker does is in
// packages workflows and activities.
package worker
