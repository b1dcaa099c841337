// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

func (v verbs) deleteCommand() *cobra.Command {
	var (
		sel     world.Selection
		files   []string
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:     "delete NAME... | -l LABELS | -f FILE",
		Aliases: []string{"rm"},
		Short:   "Remove sandboxes and their manifests",
		Long: `Remove sandboxes, and their manifests from the manifests directory. This needs no
approval, and works even if other manifests are missing or broken. If the daemon is
not running, it removes the sandboxes when it starts.

A file that defines others too keeps them. With -f, what FILE defines is removed;
FILE needs to be valid only as far as names go. config/NAME and secret/NAME remove
documents, and so does network/NAME: sandboxes that use them keep what they have. volume/NAME removes the
document; the volume goes with it if that says "reclaim: Delete", when the sandboxes
that are deleted with it are gone and no other one uses it, and stays otherwise.`,
		Example: `  sandboxctl delete web
  sandboxctl delete secret/database
  sandboxctl delete -f web.yaml --wait`,
		ValidArgsFunction: v.CompleteAll,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := slices.Clone(args)
			if len(files) > 0 {
				more, err := v.namesIn(cmd.Context(), files)
				if err != nil {
					return err
				}
				names = append(names, more...)
			}
			if sel.Labels != "" {
				w, err := v.Once(cmd.Context())
				if err != nil {
					return err
				}
				if names, err = sel.Names(w, names, false); err != nil {
					return err
				}
			}
			if len(names) == 0 {
				return exit.Usagef("expected a NAME, -l LABEL=VALUE or -f FILE")
			}
			w, err := v.OnceUnjudged(cmd.Context())
			if err != nil {
				return err
			}
			going := reclaimed(w, names)
			if err := v.delete(cmd.Context(), names); err != nil {
				return err
			}
			if wait {
				if err := await.Until(cmd.Context(), v.Host, sandboxesOf(names), await.Deleted, timeout); err != nil {
					return err
				}
			}
			return v.reclaim(cmd.Context(), going, sandboxesOf(names), timeout)
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory whose sandboxes to delete (repeatable)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes are gone")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

// namesIn are the sandboxes that files are about, whatever else is wrong with them.
func (v verbs) namesIn(ctx context.Context, paths []string) ([]string, error) {
	var names []string
	var errs []error
	for _, p := range paths {
		ins, err := expand(p)
		if err != nil {
			return nil, err
		}
		for _, in := range ins {
			data, err := v.readInput(ctx, in)
			if err != nil {
				return nil, err
			}
			docs, problems := desired.Decode(in.path, data)
			for i := range docs {
				if d := &docs[i]; desired.ValidFullName(d.Name) && !d.Guessed && d.Foreign == "" {
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

func (v verbs) delete(ctx context.Context, names []string) error {
	var errs []error
	// Sandboxes first: no document is taken away from one that is about to go.
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(len(sandboxesOf([]string{b})), len(sandboxesOf([]string{a})))
	})
	for _, name := range names {
		if err := v.deleteOne(ctx, name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deleteOne removes one sandbox. The order is recorded first, and counts as soon as no
// manifest defines the name: a command that is killed in between has changed nothing.
func (v verbs) deleteOne(ctx context.Context, name string) error {
	w, err := v.OnceUnjudged(ctx)
	if err != nil {
		return err
	}
	if w.In.Desired.Reason == desired.ReasonDirectoryUntrusted {
		// What the files say is not known, and others may have written it.
		return fmt.Errorf("delete %s: %s", name, w.In.Desired.Message)
	}
	_, defined := desired.FileFor(w.In.Desired, name)
	if !desired.ValidName(name) && defined {
		return v.deleteObject(ctx, w, name)
	}
	onRecord := w.OnRecord(name)
	unread := ""
	if rec := w.Record(name); rec != nil && !defined && w.Unread(rec.SourceFile) {
		unread = rec.SourceFile // before the order: then the record may be gone in a moment
	}
	if !defined && !onRecord {
		return w.NoSuch(name)
	}
	withdraw := func() error { return nil }
	if onRecord {
		// Where it can't be recorded, as on a full disk, the manifest is removed all the
		// same, and what comes of that is looked at in the end.
		if withdraw, err = v.orderRemoval(name); err != nil {
			fmt.Fprintf(v.Stderr, "warning: delete %s: %s\n", name, show.Clean(err.Error()))
		}
	}
	from, err := v.deleteManifests(ctx, w, name)
	if err != nil {
		return errors.Join(fmt.Errorf("delete %s: %w", name, err), withdraw())
	}
	if err := v.tellDeleted(ctx, name, from); err != nil {
		return err
	}
	if unread != "" {
		fmt.Fprintf(v.Stderr, "warning: %s, which defined %s, can't be read now: if it comes back with it, %s is started again\n", show.Clean(unread), name, name)
	}
	return nil
}

// deleteObject removes a document that is no sandbox. Nothing is stopped for it.
func (v verbs) deleteObject(ctx context.Context, w *world.World, name string) error {
	users := w.UsedBy(name)
	retained := isVolume(name) && len(reclaimed(w, []string{name})) == 0
	from, err := v.deleteManifests(ctx, w, name)
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	fmt.Fprintf(v.Stdout, "%s deleted from %s\n", name, show.Clean(strings.Join(from, " and ")))
	if retained {
		v.tellKept(name)
	}
	switch {
	case len(users) == 0 || isVolume(name):
	case isPool(name):
		fmt.Fprintf(v.Stderr, "warning: %s has claims, whose sandboxes stay as they are: %s; new claims wait until there is a pool of that name\n", name, strings.Join(users, ", "))
	case isNetwork(name):
		fmt.Fprintf(v.Stderr, "warning: %s is joined by %s: what runs stays connected, and can't be started again without it\n", name, strings.Join(users, ", "))
	default:
		fmt.Fprintf(v.Stderr, "warning: %s is used by %s: what runs keeps its values, and can't be started again without it\n", name, strings.Join(users, ", "))
	}
	return nil
}

// orderRemoval leaves the order to remove a sandbox. It returns how to take it back.
func (v verbs) orderRemoval(name string) (withdraw func() error, err error) {
	nothing := func() error { return nil }
	token := actual.NewUID()
	r := actual.Request{Kind: actual.RequestRemove, Name: name, Token: token, At: time.Now()}
	if err := v.Request(r); err != nil {
		return nothing, err
	}
	return func() error { return v.Withdraw(r) }, nil
}

// maxDefinitions bounds the files that one name is removed from.
const maxDefinitions = 100

// deleteManifests removes a name from every file that defines it, and returns these.
func (v verbs) deleteManifests(ctx context.Context, w *world.World, name string) (from []string, err error) {
	for range maxDefinitions {
		file, defined := desired.FileFor(w.In.Desired, name)
		if !defined {
			return from, nil
		}
		if err := v.deleteFrom(file, name); err != nil {
			return nil, err
		}
		from = append(from, file)
		// Looked at anew: two sandboxes may be in one file, and one in two files.
		if w, err = v.OnceUnjudged(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d files define it", maxDefinitions)
}

// tellDeleted says what comes of a sandbox whose manifest was removed: "deleted" only
// if it is gone or will be.
func (v verbs) tellDeleted(ctx context.Context, name string, from []string) error {
	w, err := v.Once(ctx)
	if err != nil {
		return err
	}
	where := " from " + strings.Join(from, " and ")
	if len(from) == 0 {
		where = ""
	}
	st := w.Status(name)
	switch {
	case !w.OnRecord(name):
		fmt.Fprintf(v.Stdout, "sandbox/%s deleted%s\n", name, where)
	case st != nil && st.Phase != reconcile.PhaseRemoving && !w.Removing(name):
		why := world.Headline(st)
		if why == "" {
			why = "it is " + st.Phase
		}
		return fmt.Errorf("sandbox/%s is still there, its manifest is not: %s", name, show.Clean(why))
	case !w.Alive:
		fmt.Fprintf(v.Stdout, "sandbox/%s will be removed when the daemon starts (systemctl start sandboxctl); its manifest is deleted%s\n", name, where)
	default:
		fmt.Fprintf(v.Stdout, "sandbox/%s deleted%s\n", name, where)
	}
	return nil
}

func (v verbs) deleteFrom(file, name string) error {
	dir, base, old, err := v.openFile(file)
	if err != nil {
		return err
	}
	defer dir.Close()
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
