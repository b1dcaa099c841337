// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/desired"
)

func (a *app) deleteCommand() *cobra.Command {
	var (
		files   []string
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "delete NAME... | -f FILE",
		Short: "Take manifests out of the manifests directory",
		Long: `Take the manifests of sandboxes out of the manifests directory. The daemon then
stops and removes the sandboxes; most of them within a minute only after
` + "`sandboxctl approve`" + `. A file that defines others too keeps them.`,
		Example: `  sandboxctl delete web
  sandboxctl delete -f web.yaml --wait`,
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if len(files) > 0 {
				ms, err := a.readManifests(cmd.Context(), files, nil)
				if err != nil {
					return err
				}
				for i := range ms {
					names = append(names, ms[i].name())
				}
			}
			if len(names) == 0 {
				return usagef("expected a NAME or -f FILE")
			}
			if err := a.delete(cmd.Context(), names); err != nil || !wait {
				return err
			}
			return a.waitFor(cmd.Context(), names, forDelete, timeout)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory whose sandboxes to delete (repeatable)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes are gone")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

func (a *app) delete(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		// Looked at anew for each: two may be in one file.
		w, err := a.once(ctx)
		if err != nil {
			return err
		}
		switch w.in.Desired.Reason {
		case desired.ReasonDirectoryUntrusted, desired.ReasonPolicyUnusable:
			// What the files say is not known.
			return fmt.Errorf("delete %s: %s", name, w.in.Desired.Message)
		}
		file, defined := desired.FileFor(w.in.Desired, name)
		if !defined {
			err := w.noSuch(name)
			if w.status(name) != nil {
				err = fmt.Errorf("delete %s: no manifest defines it any more; the daemon removes it when the manifests directory can be relied on", name)
			}
			errs = append(errs, err)
			continue
		}
		if err := a.deleteFrom(file, name); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", name, err))
			continue
		}
		fmt.Fprintf(a.stdout, "sandbox/%s deleted from %s\n", name, file)
	}
	return errors.Join(errs...)
}

func (a *app) deleteFrom(file, name string) error {
	dir, err := os.Open(path.Join(a.manifests, path.Dir(file)))
	if err != nil {
		return err
	}
	defer dir.Close()
	base := path.Base(file)
	old, err := readBelow(dir, base)
	if err != nil {
		return err
	}
	rest, err := desired.Without(file, old, name)
	if err != nil {
		return err
	}
	if rest == nil {
		err = atomicfile.Remove(dir, base)
	} else {
		err = atomicfile.Write(dir, base, rest, modeOf(dir, base))
	}
	// And what earlier programs like this one left that were killed.
	_, serr := atomicfile.SweepTemps(dir)
	return errors.Join(err, serr)
}
