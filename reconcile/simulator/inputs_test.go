// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/needs"
)

// inputFile is the file of the host that some manifests refer to. It has one of a few
// contents, so that it can have an earlier one again.
const (
	inputFile   = "/srv/value"
	contents    = 3
	halfWritten = -1 // a gofer's file that was changed in half
)

// inputVolume is what such a manifest says of it.
const inputVolume = "  volumes: [{name: v, mountPath: /v, config: {files: {f: " + inputFile + "}, onChange: signal}}]\n"

// files looks at the file for the planner.
func (h *host) files(paths []string) map[string]needs.File {
	out := map[string]needs.File{}
	for _, p := range paths {
		out[p] = needs.File{ID: strconv.Itoa(h.content)}
	}
	return out
}

// readInputs reads what a manifest refers to.
func (o *op) readInputs(sb *desired.Sandbox) (in []actual.Input, content int, err error) {
	if len(sb.Spec.FileRefs()) == 0 {
		return nil, 0, nil
	}
	err = o.h.call(o.t, reads, "read "+inputFile, func(bool) error {
		content = o.h.content
		in = []actual.Input{{File: inputFile, ID: strconv.Itoa(content)}}
		return nil
	})
	return in, content, err
}

// Refresh implements reconcile.Launcher.
func (l *launcher) Refresh(ctx context.Context, e *desired.Entry, volumes []string) error {
	o := l.begin("refresh", e.Sandbox.Metadata.Name)
	defer o.end()
	err := o.refresh(e, volumes)
	switch {
	case err == nil && !l.p.dead:
		l.h.stats.Refreshes++
	case err != nil && !l.p.dead:
		l.h.note("%s failed: %v", o.t.name, err)
	}
	if err != nil && operation.Shutdown(ctx) {
		return errors.Join(operation.ErrShutdown, err)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

func (o *op) refresh(e *desired.Entry, volumes []string) error {
	rec, err := o.load(e.Sandbox.Metadata.Name)
	if err != nil {
		return err
	}
	if rec == nil || rec.Phase != actual.PhaseRunning {
		return errors.New("it does not run")
	}
	in, content, err := o.readInputs(e.Sandbox)
	if err != nil {
		return err
	}
	rec = rec.Clone()
	rec.Refreshing(volumes, time.Now())
	if !o.h.is("refresh-without-intent") {
		if err := o.store.Put(rec); err != nil {
			return fmt.Errorf("record intent: %w", err)
		}
	}
	if err := o.writeFiles(rec, content); err != nil {
		return err
	}
	if !o.h.is("refreshed-before-signal") {
		if err := o.signalReload(rec); err != nil {
			return err
		}
	}
	rec.Refreshed(in)
	if err := o.store.Put(rec); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if o.h.is("refreshed-before-signal") {
		return o.signalReload(rec)
	}
	return nil
}

// writeFiles changes the files of the gofer.
func (o *op) writeFiles(rec *actual.Record, content int) error {
	g, err := o.h.processes().Open(*rec.Gofer)
	if err != nil {
		return fmt.Errorf("open its gofer: %w", err)
	}
	gofer := g.Pidfd.(*pidfd).proc
	return o.h.call(o.t, writes, "replace files of "+rec.Name, func(half bool) error {
		if gofer.dead {
			return unix.ESRCH
		}
		gofer.content = content
		if half {
			gofer.content = halfWritten
		}
		return nil
	})
}

// signalReload has the application read its files again.
func (o *op) signalReload(rec *actual.Record) error {
	s, err := o.h.processes().Open(*rec.Sentry)
	if err != nil {
		return fmt.Errorf("open its sentry: %w", err)
	}
	sentry := s.Pidfd.(*pidfd).proc
	return o.h.call(o.t, talks, "signal "+rec.Name, func(bool) error {
		if sentry.dead {
			return unix.ECONNRESET
		}
		sentry.content = sentry.partner.content
		return nil
	})
}

// outdated says why a sandbox that runs has not the files that there are, or its
// application has not been told.
func (h *host) outdated(e *desired.Entry, sentry, gofer *proc) string {
	switch {
	case len(e.Sandbox.Spec.FileRefs()) == 0:
		return ""
	case gofer.content != h.content:
		return fmt.Sprintf("it has the files %d, there are %d", gofer.content, h.content)
	case sentry.content != h.content:
		return fmt.Sprintf("its application has read the files %d, there are %d", sentry.content, h.content)
	}
	return ""
}
