package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
)

// temporalLog is the log of the Temporal server, written through slog.
type temporalLog struct {
	to    *slog.Logger
	muted *atomic.Bool // shared by the loggers made with With
	fatal chan error   // holds the first error with which a part gave up
}

var (
	_ log.Logger     = (*temporalLog)(nil)
	_ log.WithLogger = (*temporalLog)(nil)
)

func newTemporalLog(to *slog.Logger) *temporalLog {
	return &temporalLog{to: to.With("part", "temporal"), muted: new(atomic.Bool), fatal: make(chan error, 1)}
}

// mute drops everything from now on.
func (l *temporalLog) mute() { l.muted.Store(true) }

// With adds tags to every later line.
func (l *temporalLog) With(tags ...tag.Tag) log.Logger {
	with := *l
	with.to = slog.New(l.to.Handler().WithAttrs(attributes(tags)))
	return &with
}

func (l *temporalLog) Debug(msg string, tags ...tag.Tag) { l.write(slog.LevelDebug, msg, tags) }
func (l *temporalLog) Info(msg string, tags ...tag.Tag)  { l.write(slog.LevelInfo, msg, tags) }
func (l *temporalLog) Warn(msg string, tags ...tag.Tag)  { l.write(slog.LevelWarn, msg, tags) }
func (l *temporalLog) Error(msg string, tags ...tag.Tag) { l.write(slog.LevelError, msg, tags) }

// DPanic is for bugs that only a development build of the server panics at.
func (l *temporalLog) DPanic(msg string, tags ...tag.Tag) { l.write(slog.LevelError, msg, tags) }

// Panic panics, as the server expects.
func (l *temporalLog) Panic(msg string, tags ...tag.Tag) {
	l.write(slog.LevelError, msg, tags)
	panic(msg)
}

// Fatal is called by a part of the server that cannot go on, and must not
// return. It reports the error and parks the goroutine for good, so that the
// program can say what happened and stop the other parts in order. To end the
// goroutine instead would do harm: some of the callers are inside a sync.Once,
// which takes that for a panic.
func (l *temporalLog) Fatal(msg string, tags ...tag.Tag) {
	select {
	case l.fatal <- fatalError(msg, tags):
	default:
	}
	select {}
}

func fatalError(msg string, tags []tag.Tag) error {
	if cause := errorText(tags); cause != "" {
		return fmt.Errorf("%s: %s", msg, cause)
	}
	return fmt.Errorf("%s %v", msg, attributes(tags))
}

// errorText is the text of the tag "error": the server hands errors to its log
// as such, not as errors.
func errorText(tags []tag.Tag) string {
	for _, t := range tags {
		if t.Key() == "error" {
			return fmt.Sprint(t.Value())
		}
	}
	return ""
}

// noHTTP is a warning of the server about something intended: its HTTP API would be one
// more door without a password, and nothing needs it.
const noHTTP = "HTTP API port has not been set."

// write leaves out what is intended, unless the log has level DEBUG: noHTTP, and callers
// that hang up, as each worker does when it stops.
func (l *temporalLog) write(level slog.Level, msg string, tags []tag.Tag) {
	ctx := context.Background()
	if l.muted.Load() || !l.to.Enabled(ctx, level) {
		return
	}
	onPurpose := strings.HasPrefix(msg, noHTTP) || strings.Contains(errorText(tags), context.Canceled.Error())
	if onPurpose && !l.to.Enabled(ctx, slog.LevelDebug) {
		return
	}
	l.to.LogAttrs(ctx, level, msg, attributes(tags)...) //nolint:sloglint // the message is Temporal's
}

func attributes(tags []tag.Tag) []slog.Attr {
	attrs := make([]slog.Attr, len(tags))
	for i, t := range tags {
		attrs[i] = slog.Any(t.Key(), t.Value())
	}
	return attrs
}
