// SPDX-License-Identifier: Apache-2.0

// Package operation is what the reconcile loop and a launcher agree on about one
// operation on one sandbox: how the loop ends it, and how the launcher tells
// that it only waits.
package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrShutdown is the cause of an operation's end when the daemon ends. A launcher
// then leaves everything as it is, as if the daemon had been killed: the next
// daemon resumes the operation from the record, and no failure is counted.
var ErrShutdown = errors.New("the daemon is shutting down")

// ErrImageNotFound says of a pull that its source does not have the image.
var ErrImageNotFound = errors.New("image not found")

// PullStep is how far a pull is.
type PullStep struct {
	// Text says so.
	Text string
	// Local says that what is left is this host's work: no registry can make it last.
	Local bool
}

// Cancelled is the cause of an operation's end when the reason for it is gone, or
// is another one now. A launcher then undoes what it did and writes Reason into
// the record. It is not a failure of the sandbox.
type Cancelled struct {
	// Reason is why, as of an Action: ManifestRemoved, SpecChanged, …
	Reason string
}

func (c *Cancelled) Error() string { return "cancelled: " + c.Reason }

type key struct{}

type operation struct {
	parent context.Context
	waits  func()
}

// New returns the context of one operation and what cancels it. It ends with
// parent too. waits is called when the operation gives up its worker.
func New(parent context.Context, waits func()) (context.Context, context.CancelCauseFunc) {
	return context.WithCancelCause(context.WithValue(parent, key{}, &operation{parent: parent, waits: waits}))
}

// Waits tells the loop that what follows takes as long as a guest, an author or a
// sentry decides: a hook, a grace period, a process that does not die. The
// operation gives up its worker, so that nobody else waits with it.
func Waits(ctx context.Context) {
	if o, ok := ctx.Value(key{}).(*operation); ok {
		o.waits()
	}
}

// WaitsAfter has the operation give up its worker if it is not stopped before: what
// follows takes no time, unless somebody sees to it that it does.
func WaitsAfter(ctx context.Context, d time.Duration) (stop func() bool) {
	return time.AfterFunc(d, func() { Waits(ctx) }).Stop
}

type passKey struct{}

// Pass is the pass of the loop that decided on an operation.
type Pass struct {
	// Began is when it began, Read when it had read the manifests.
	Began, Read time.Time
}

// In returns the context of an operation that the pass decided on.
func (p Pass) In(ctx context.Context) context.Context { return context.WithValue(ctx, passKey{}, p) }

// PassOf returns the pass that decided on the operation of the context, the zero value
// if none did.
func PassOf(ctx context.Context) Pass {
	p, _ := ctx.Value(passKey{}).(Pass)
	return p
}

// CleanUp returns a context for undoing what an operation did: it lasts longer
// than the operation, and ends with the daemon.
func CleanUp(ctx context.Context) context.Context {
	if o, ok := ctx.Value(key{}).(*operation); ok {
		return context.WithValue(o.parent, key{}, o)
	}
	return context.WithoutCancel(ctx)
}

// Shutdown says whether the daemon ends.
func Shutdown(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), ErrShutdown) || errors.Is(context.Cause(CleanUp(ctx)), ErrShutdown)
}

// permanentError is an error that trying the same again can't cure.
type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// Permanent tells the reconcile loop not to retry before the spec changes.
func (e *permanentError) Permanent() bool { return true }

// Permanentf is fmt.Errorf for an error that trying the same again can't cure.
func Permanentf(format string, args ...any) error {
	return &permanentError{fmt.Errorf(format, args...)}
}

// Permanent says whether trying the same again can't help: the chain of the error
// has a method Permanent that says so.
func Permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// preconditionError is an error that lasts until somebody changes the host or the root of
// the sandbox. It is tried again: what is missing may be made or mounted.
type preconditionError struct{ error }

func (e *preconditionError) Unwrap() error { return e.error }

// PreconditionFailed says so.
func (e *preconditionError) PreconditionFailed() bool { return true }

// Precondition marks an error that lasts until somebody changes the host.
func Precondition(err error) error { return &preconditionError{err} }

// PathPrecondition marks an error to open what a manifest names if it says that it is not
// there, or is not what it should be; it returns others as they are.
func PathPrecondition(err error) error {
	for _, errno := range []error{unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.EACCES, unix.ENAMETOOLONG} {
		if errors.Is(err, errno) {
			return &preconditionError{err}
		}
	}
	return err
}

// PreconditionFailed says whether an error lasts until somebody changes the host or the root of
// the sandbox: the chain of the error has a method PreconditionFailed that says so.
func PreconditionFailed(err error) bool {
	var u interface{ PreconditionFailed() bool }
	return errors.As(err, &u) && u.PreconditionFailed()
}

// CancelReason is why an operation was cancelled, "" if it was not.
func CancelReason(ctx context.Context) string {
	if c, ok := errors.AsType[*Cancelled](context.Cause(ctx)); ok {
		return c.Reason
	}
	return ""
}
