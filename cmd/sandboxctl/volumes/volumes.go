// SPDX-License-Identifier: Apache-2.0

// Package volumes has the verbs for named volumes. They need no daemon: a volume is locked
// by the program that makes or removes it.
package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher/volume"
)

// verbs are the verbs of one run of the program.
type verbs struct{ *world.Host }

// Command is the verb volume, with its own verbs.
func Command(h *world.Host) *cobra.Command {
	v := verbs{h}
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "List, remove, back up and restore named volumes",
		Long: `List, remove, back up and restore named volumes: directories in the state directory that sandboxes name
with volumes[].volume. A volume is made when a sandbox first uses it, and stays when the
sandbox goes.`,
		Example: `  sandboxctl volume ls
  sandboxctl volume inspect data
  sandboxctl volume rm data`,
		Args: exit.VerbArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(v.lsCommand(), v.inspectCommand(), v.rmCommand(), v.pruneCommand(), v.backupCommand(), v.restoreCommand())
	entry.CompleteOutputs(cmd)
	return cmd
}

// opened are the volumes of a state directory that is open.
type opened struct {
	*volume.Store
	state *actual.Store
}

func (o *opened) Close() {
	o.Store.Close()
	_ = o.state.Close() // it was only read
}

// look opens the volumes: nil if there never was one.
func (v verbs) look() (*opened, error) {
	state, err := actual.OpenStoreReadOnly(v.State)
	if errors.Is(err, actual.ErrNoState) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := volume.Look(state.RootDir())
	if err != nil {
		state.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	return &opened{s, state}, nil
}

// open is look for a verb that needs a volume.
func (v verbs) open(name string) (*opened, error) {
	s, err := v.look()
	if err == nil && s == nil {
		err = fmt.Errorf("%w: %s", volume.ErrNotFound, name)
	}
	return s, err
}

// complete completes the names of volumes.
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
