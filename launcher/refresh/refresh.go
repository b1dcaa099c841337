// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/inputs"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

const (
	// signalTimeout bounds how long a sentry may take to answer.
	signalTimeout = 10 * time.Second
	// waits is how long that holds a worker.
	waits = time.Second
)

// Run gives a sandbox that runs the files that these volumes of its manifest have now, and
// tells the application. The record says what is being done from before the first change
// until the application has been told: who finds it after a crash does all of it again.
func Run(ctx context.Context, store *actual.Store, rec *actual.Record, e *desired.Entry, volumes []string, docs inputs.Documents, policy *hostpolicy.Policy, host *hostfs.Host) error {
	if rec.Phase != actual.PhaseRunning || rec.Gofer == nil || rec.Sentry == nil {
		return fmt.Errorf("it is %s, expected Running", rec.Phase)
	}
	read, err := inputs.ForRefresh(ctx, e.Sandbox, volumes, docs, policy, host)
	if err != nil {
		return err
	}
	st, err := built.Of(store, rec)
	if err != nil {
		return err
	}
	trees, err := treesOf(st, volumes, read.Files)
	if err != nil {
		return err
	}
	rec = rec.Clone()
	rec.Refreshing(volumes, time.Now())
	if err := store.Put(rec); err != nil {
		return fmt.Errorf("record intent: %w", err)
	}
	if err := crashpoint.Do(crashpoint.RefreshWrite, func() error { return write(*rec.Gofer, st.Maps, trees) }); err != nil {
		return fmt.Errorf("replace files: %w", err)
	}
	if err := crashpoint.Do(crashpoint.RefreshSignal, func() error { return tell(ctx, store, rec, signals(e.Sandbox, volumes)) }); err != nil {
		return fmt.Errorf("tell the application: %w", err)
	}
	rec.Refreshed(nowRead(e.Sandbox, rec, volumes, read.Inputs))
	if err := store.Put(rec); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Owe has the application of a checkpoint told, when it runs again: what is in its memory is of
// the files there were then, and nobody knows which those were.
func Owe(rec *actual.Record, sb *desired.Sandbox) {
	var volumes []string
	for i := range sb.Spec.Volumes {
		if set := sb.Spec.Volumes[i].InMemory(); set != nil && set.OnChange == desired.OnChangeSignal {
			volumes = append(volumes, sb.Spec.Volumes[i].Name)
		}
	}
	if len(volumes) > 0 {
		rec.Refreshing(volumes, time.Time{})
	}
}

// treesOf finds the volumes among what was built.
func treesOf(st *setup.Setup, volumes []string, files map[string][]setup.MemoryFile) ([]tree, error) {
	var out []tree
	sources := st.Sources()
	for _, name := range volumes {
		i := slices.IndexFunc(sources, func(s setup.Source) bool { return s.InMemory == name })
		if i < 0 {
			return nil, operation.Permanentf("the volume %s is not mounted in it; restart it", name)
		}
		t := tree{name: name, mount: hostfs.MountOf(sources, i), subPath: sources[i].SubPath, owner: sources[i].Owner, files: files[name]}
		t.file = t.subPath != "" && slices.ContainsFunc(t.files, func(f setup.MemoryFile) bool { return f.Name == t.subPath })
		out = append(out, t)
	}
	return out, nil
}

// signals are those of the volumes, each once.
func signals(sb *desired.Sandbox, volumes []string) (out []scalar.Signal) {
	for i := range sb.Spec.Volumes {
		v := &sb.Spec.Volumes[i]
		if set := v.InMemory(); set != nil && slices.Contains(volumes, v.Name) && !slices.Contains(out, set.Signal) {
			out = append(out, set.Signal)
		}
	}
	return out
}

// tell sends the application signals.
func tell(ctx context.Context, store *actual.Store, rec *actual.Record, names []scalar.Signal) error {
	defer operation.WaitsAfter(ctx, waits)()
	ctx, cancel := context.WithTimeoutCause(ctx, signalTimeout, fmt.Errorf("its sentry did not answer within %s", signalTimeout))
	defer cancel()
	c, err := sentry.ConnectTo(ctx, store, rec)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range names {
		var sig unix.Signal
		if sig, err = scalar.ParseSignal(string(name)); err == nil {
			err = c.App().Signal(ctx, sig, false)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// nowRead is what the sandbox has of what its manifest refers to: of these volumes what was
// read for them now. Where a file was read twice the first time counts: if it has changed in
// between, the next look finds that.
func nowRead(sb *desired.Sandbox, rec *actual.Record, volumes []string, read []actual.Input) []actual.Input {
	ids := make(map[string]string, len(read))
	for _, in := range read {
		if _, again := ids[in.File]; !again {
			ids[in.File] = in.ID
		}
	}
	out := slices.Clone(rec.Inputs)
	at := 0
	for _, ref := range sb.Spec.FileRefs() {
		i := rec.InputAt(at, ref.Path)
		at = i + 1
		if id, known := ids[ref.Path]; i >= 0 && known && slices.Contains(volumes, ref.Volume) {
			out[i].ID = id
		}
	}
	return out
}
