// SPDX-License-Identifier: Apache-2.0

// Package snapshots has the verbs that save the state of sandboxes, in a directory or as a
// snapshot, and those that list, check, remove and restore what was saved.
package snapshots

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher/snapshot"
)

// verbs are the verbs of one run of the program.
type verbs struct{ *world.Host }

// Commands are the verbs of this package.
func Commands(h *world.Host) []*cobra.Command {
	v := verbs{h}
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Make, list, check and remove snapshots",
		Long: `Make, list, check and remove snapshots: the saved memory and processes of a sandbox, from which
any number of sandboxes begin with spec.snapshot in their manifests. They are in the state
directory, and hold every secret of the sandbox that they were made of.`,
		Example: `  sandboxctl snapshot create web web-ready
  sandboxctl snapshot ls
  sandboxctl snapshot rm web-ready`,
		Args: exit.VerbArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(v.createCommand(), v.lsCommand(), v.verifyCommand(), v.rmCommand())
	entry.CompleteOutputs(cmd)
	return []*cobra.Command{cmd, v.checkpointCommand(), v.restoreCommand()}
}

// opened are the snapshots of a state directory that is open.
type opened struct {
	*snapshot.Store
	state *actual.Store
}

func (o *opened) Close() {
	o.Store.Close()
	_ = o.state.Close() // it was only read
}

// look opens the snapshots: nil if there never was one.
func (v verbs) look() (*opened, error) {
	state, err := actual.OpenStoreReadOnly(v.State)
	if errors.Is(err, actual.ErrNoState) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := snapshot.Look(state.RootDir())
	if err != nil {
		state.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	return &opened{s, state}, nil
}

// open is look for a verb that needs a snapshot.
func (v verbs) open(name string) (*opened, error) {
	s, err := v.look()
	if err == nil && s == nil {
		err = fmt.Errorf("%w: %s", snapshot.ErrNotFound, name)
	}
	return s, err
}

// complete completes the names of snapshots.
func (v verbs) complete(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := v.look()
	if s == nil || err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer s.Close()
	all, err := s.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for i := range all {
		if !slices.Contains(args, all[i].Name) {
			out = append(out, all[i].Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// users are the sandboxes and pools whose manifests name a snapshot, by the name of the snapshot. unknown
// says why there may be more of them, nil if there are not.
func (v verbs) users(ctx context.Context) (by map[string][]string, unknown, err error) {
	w, err := v.OnceUnjudged(ctx)
	if err != nil {
		return nil, nil, err
	}
	by = map[string][]string{}
	for i := range w.In.Desired.Entries {
		sb := w.In.Desired.Entries[i].Sandbox
		if sb.Spec.Snapshot != nil {
			by[sb.Spec.Snapshot.From] = append(by[sb.Spec.Snapshot.From], sb.Metadata.Name)
		}
	}
	for i := range w.In.Desired.Objects { // its next claim is to begin from it
		if o := &w.In.Desired.Objects[i]; o.Pool != nil && o.Pool.Template.Snapshot != nil {
			from := o.Pool.Template.Snapshot.From
			by[from] = append(by[from], o.Name())
		}
	}
	if !w.Summary.Complete {
		unknown = fmt.Errorf("not all manifests are known: %s: %s", w.Summary.Reason, w.Summary.Message)
	}
	for name := range by {
		slices.Sort(by[name])
	}
	return by, unknown, nil
}
