// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

func (a *app) deleteCommand() *cobra.Command {
	var (
		sel     selection
		files   []string
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:     "delete NAME... | -l LABELS | -f FILE",
		Aliases: []string{"rm"},
		Short:   "Remove sandboxes and their manifests",
		Long: `Remove sandboxes: their manifests from the manifests directory, and with an order
to the daemon also what runs. The order needs no approval, holds whatever else is
missing or broken in the directory, and waits for the daemon if there is none.

A file that defines others too keeps them. With -f, what FILE defines is removed;
FILE needs to be valid only as far as names go.`,
		Example: `  sandboxctl delete web
  sandboxctl delete -f web.yaml --wait`,
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := slices.Clone(args)
			if len(files) > 0 {
				more, err := a.namesIn(cmd.Context(), files)
				if err != nil {
					return err
				}
				names = append(names, more...)
			}
			if sel.labels != "" {
				w, err := a.once(cmd.Context())
				if err != nil {
					return err
				}
				if names, err = sel.names(w, names, false); err != nil {
					return err
				}
			}
			if len(names) == 0 {
				return exit.Usagef("expected a NAME, -l LABEL=VALUE or -f FILE")
			}
			if err := a.delete(cmd.Context(), names); err != nil || !wait {
				return err
			}
			return a.waitFor(cmd.Context(), names, forDelete, timeout)
		},
	}
	sel.add(cmd)
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory whose sandboxes to delete (repeatable)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes are gone")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

// namesIn are the sandboxes that files are about, whatever else is wrong with them.
func (a *app) namesIn(ctx context.Context, paths []string) ([]string, error) {
	var names []string
	var errs []error
	for _, p := range paths {
		ins, err := expand(p)
		if err != nil {
			return nil, err
		}
		for _, in := range ins {
			data, err := a.readInput(ctx, in)
			if err != nil {
				return nil, err
			}
			docs, problems := desired.Decode(in.path, data)
			for i := range docs {
				if d := &docs[i]; desired.ValidName(d.Name) && !d.Guessed {
					names = append(names, d.Name)
				}
			}
			for i := range problems {
				if p := &problems[i]; p.Name == "" || !slices.Contains(names, p.Name) {
					errs = append(errs, errors.New(show.Clean(p.Error())))
				}
			}
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("which sandboxes are meant can't be told; nothing is deleted:\n%w", errors.Join(errs...))
	}
	return names, nil
}

func (a *app) delete(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		if err := a.deleteOne(ctx, name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deleteOne removes one sandbox. The order is recorded first, and counts as soon as no
// manifest defines the name: a command that is killed in between has changed nothing.
func (a *app) deleteOne(ctx context.Context, name string) error {
	w, err := a.onceUnjudged(ctx)
	if err != nil {
		return err
	}
	if w.in.Desired.Reason == desired.ReasonDirectoryUntrusted {
		// What the files say is not known, and others may have written it.
		return fmt.Errorf("delete %s: %s", name, w.in.Desired.Message)
	}
	_, defined := desired.FileFor(w.in.Desired, name)
	onRecord := w.onRecord(name)
	unread := ""
	if rec := w.record(name); rec != nil && !defined && w.unread(rec.SourceFile) {
		unread = rec.SourceFile // before the order: then the record may be gone in a moment
	}
	if !defined && !onRecord {
		return w.noSuch(name)
	}
	withdraw := func() error { return nil }
	if onRecord {
		// Where it can't be recorded, as on a full disk, the manifest is removed all the
		// same, and what comes of that is looked at in the end.
		if withdraw, err = a.orderRemoval(name); err != nil {
			fmt.Fprintf(a.stderr, "warning: delete %s: %s\n", name, show.Clean(err.Error()))
		}
	}
	from, err := a.deleteManifests(ctx, w, name)
	if err != nil {
		return errors.Join(fmt.Errorf("delete %s: %w", name, err), withdraw())
	}
	if err := a.tellDeleted(ctx, name, from); err != nil {
		return err
	}
	if unread != "" {
		fmt.Fprintf(a.stderr, "warning: %s, which defined %s, can't be read now: if it comes back with it, %s is started again\n", show.Clean(unread), name, name)
	}
	return nil
}

// orderRemoval leaves the order to remove a sandbox. It returns how to take it back.
func (a *app) orderRemoval(name string) (withdraw func() error, err error) {
	nothing := func() error { return nil }
	token := actual.NewUID()
	r := actual.Request{Kind: actual.RequestRemove, Name: name, Token: token, At: time.Now()}
	if err := a.request(r); err != nil {
		return nothing, err
	}
	return func() error { return a.withdraw(r) }, nil
}

func (a *app) withdraw(r actual.Request) error {
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	return store.WithdrawRequest(r)
}

// maxDefinitions bounds the files that one name is removed from.
const maxDefinitions = 100

// deleteManifests removes a name from every file that defines it, and returns these.
func (a *app) deleteManifests(ctx context.Context, w *world, name string) (from []string, err error) {
	for range maxDefinitions {
		file, defined := desired.FileFor(w.in.Desired, name)
		if !defined {
			return from, nil
		}
		if err := a.deleteFrom(file, name); err != nil {
			return nil, err
		}
		from = append(from, file)
		// Looked at anew: two sandboxes may be in one file, and one in two files.
		if w, err = a.onceUnjudged(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d files define it", maxDefinitions)
}

// tellDeleted says what comes of a sandbox whose manifest was removed: "deleted" only
// if it is gone or will be.
func (a *app) tellDeleted(ctx context.Context, name string, from []string) error {
	w, err := a.once(ctx)
	if err != nil {
		return err
	}
	where := " from " + strings.Join(from, " and ")
	if len(from) == 0 {
		where = ""
	}
	st := w.status(name)
	switch {
	case !w.onRecord(name):
		fmt.Fprintf(a.stdout, "sandbox/%s deleted%s\n", name, where)
	case st != nil && st.Phase != reconcile.PhaseRemoving && !w.removing(name):
		why := headline(st)
		if why == "" {
			why = "it is " + st.Phase
		}
		return fmt.Errorf("sandbox/%s is still there, its manifest is not: %s", name, show.Clean(why))
	case !w.alive:
		fmt.Fprintf(a.stdout, "sandbox/%s will be removed when the daemon starts (systemctl start sandboxctl); its manifest is deleted%s\n", name, where)
	default:
		fmt.Fprintf(a.stdout, "sandbox/%s deleted%s\n", name, where)
	}
	return nil
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
