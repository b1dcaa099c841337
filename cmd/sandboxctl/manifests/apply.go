// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/yamldoc"
)

// manifest is one document given on the command line.
type manifest struct {
	desired.Document
	text []byte
}

func (m *manifest) name() string { return m.Name }

// label is a full name as verbs print it.
func label(name string) string {
	if desired.ValidName(name) {
		return "sandbox/" + name
	}
	return name
}

// sandboxesOf are the names that are those of sandboxes.
func sandboxesOf(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !desired.ValidName(n) })
}

func (v verbs) applyCommand() *cobra.Command {
	var (
		files   []string
		dryRun  bool
		fresh   bool
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Put manifests into the manifests directory",
		Long: `Put manifests into the manifests directory, each sandbox as NAME.yaml, written
whole. A Config becomes NAME.config.yaml, a Secret NAME.secret.yaml, which only root
may read, a SandboxPool NAME.pool.yaml, a Volume NAME.volume.yaml, and the volume is made. Everything is checked
first: if anything is wrong nothing is written.

A sandbox that another file of the directory defines is refused: that file has
an owner. No daemon is needed; one that runs acts at once.

Use --new-directory if the manifests directory was removed or replaced on purpose.
The directory is made if necessary, and running sandboxes that it does not define
are removed. Like "delete" this needs no approval, however many they are. --dry-run
shows which ones.`,
		Example: `  sandboxctl apply -f web.yaml
  sandboxctl apply -f manifests/ --new-directory --dry-run
  sandboxctl apply -f manifests/ --new-directory
  sandboxctl apply -f manifests/ --dry-run
  generate | sandboxctl apply -f - --wait --timeout 30s`,
		Args: onlyFiles,
		RunE: func(cmd *cobra.Command, _ []string) error {
			policy, err := v.HostPolicy()
			if err != nil {
				return err
			}
			ms, err := v.readManifests(cmd.Context(), files, policy)
			if err != nil {
				return err
			}
			if err := v.apply(cmd.Context(), ms, applyFlags{dryRun: dryRun, newDirectory: fresh}); err != nil || dryRun || !wait {
				return err
			}
			names := make([]string, len(ms))
			for i := range ms {
				names[i] = ms[i].name()
			}
			return await.Until(cmd.Context(), v.Host, sandboxesOf(names), await.Ready, timeout)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - for standard input (repeatable)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be written, and write nothing")
	cmd.Flags().BoolVar(&fresh, "new-directory", false, "the manifests directory is new on purpose: remove the sandboxes that it does not define")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes run (or have completed)")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

// readManifests reads and checks what -f names, by a host policy if there is one.
// All problems are reported at once.
func (v verbs) readManifests(ctx context.Context, paths []string, policy desired.Policy) ([]manifest, error) {
	if len(paths) == 0 {
		return nil, exit.Usagef("expected -f FILE, -f DIR or -f -")
	}
	var files []input
	for _, p := range paths {
		ins, err := expand(p)
		if err != nil {
			return nil, err
		}
		files = append(files, ins...)
	}
	var out []manifest
	var problems []desired.Problem
	seen := map[string]desired.Position{}
	for _, in := range files {
		data, err := v.readInput(ctx, in)
		if err != nil {
			return nil, err
		}
		f := in.path
		docs, ps := desired.Decoder{Policy: policy}.Decode(f, data)
		problems = append(problems, ps...)
		v.noteForeign(f, docs)
		texts := yamldoc.Texts(data)
		for i, d := range docs {
			if !d.Valid() {
				continue
			}
			if first, ok := seen[d.Name]; ok && first.File != f {
				problems = append(problems, desired.Problem{
					Position: d.Position, Name: d.Name, Field: "metadata.name",
					Message: fmt.Sprintf("%s is also defined at %s", desired.Described(d.Name), first),
				})
			}
			seen[d.Name] = d.Position
			out = append(out, manifest{Document: d, text: texts[i]})
		}
	}
	if len(problems) > 0 {
		return nil, problemsError(problems)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no document of %s and apiVersion %s in %s", strings.Replace(desired.ManifestKinds.Wanted(), ": ", " ", 1), desired.APIVersion, strings.Join(paths, ", "))
	}
	return out, nil
}

// noteForeign says that documents of a file are for another program and ignored.
func (v verbs) noteForeign(file string, docs []desired.Document) {
	if w := desired.ForeignWarning(file, docs); w != nil {
		fmt.Fprintf(v.Stderr, "warning: %s\n", show.Clean(w.Error()))
	}
}

// problemsError makes one error of all problems, one line each.
func problemsError(ps []desired.Problem) error {
	lines := make([]string, 0, len(ps)+1)
	for _, p := range ps {
		lines = append(lines, show.Clean(p.Error()))
	}
	noun := "problem"
	if len(ps) > 1 {
		noun = "problems"
	}
	return fmt.Errorf("%d %s:\n%s", len(ps), noun, strings.Join(lines, "\n"))
}

// change is a write that apply has decided on.
type change struct {
	name, file string
	data       []byte
	verb       string // created, configured, unchanged
}

// applyFlags are what apply was told besides the manifests.
type applyFlags struct {
	dryRun       bool
	newDirectory bool
}

func (v verbs) apply(ctx context.Context, ms []manifest, flags applyFlags) error {
	dryRun := flags.dryRun
	dir, w, err := v.openManifests(ctx, ms, flags)
	if err != nil {
		return err
	}
	if err := v.checkSizes(w, ms); err != nil {
		return err
	}
	if err := v.checkClaims(w.In.Desired, ms); err != nil {
		return err
	}
	v.warnOfContention(w, ms)
	v.warnOfExpired(ms)
	snap := w.In.Desired
	var changes []change
	for i := range ms {
		c, err := decide(snap, &ms[i], dir)
		if err != nil {
			return err
		}
		changes = append(changes, *c)
	}
	// What sandboxes refer to comes first: none is started without it, or with the old one.
	slices.SortStableFunc(changes, func(a, b change) int {
		return cmp.Compare(len(sandboxesOf([]string{a.name})), len(sandboxesOf([]string{b.name})))
	})
	for _, c := range changes {
		suffix := ""
		switch {
		case dryRun:
			suffix = " (dry run)"
		case c.verb != "unchanged":
			if err := v.countermand(c.name); err != nil {
				return fmt.Errorf("apply %s: %w", c.name, err)
			}
			if err := atomicfile.Write(dir, c.file, c.data, modeOf(dir, c.file)); err != nil {
				return fmt.Errorf("apply %s: %w", c.name, err)
			}
		}
		fmt.Fprintf(v.Stdout, "%s %s%s\n", label(c.name), c.verb, suffix)
	}
	var removals error
	if flags.newDirectory {
		removals = v.removeOthers(w, ms, dryRun)
	}
	if dir == nil {
		return removals
	}
	defer dir.Close()
	if dryRun {
		return removals
	}
	// Of earlier programs like this one that were killed.
	_, err = atomicfile.SweepTemps(dir)
	return errors.Join(removals, err, v.makeVolumes(ctx, ms))
}

// removeOthers orders the removal of what a new manifests directory does not define.
// The manifests are written by then. If this program is killed in between, nothing was
// ordered, and what vanished is judged as any other removal.
func (v verbs) removeOthers(w *world.World, ms []manifest, dryRun bool) error {
	suffix := ""
	switch {
	case dryRun:
		suffix = " (dry run)"
	case !w.Alive:
		suffix = " when the daemon starts"
	}
	names, kept := leftOut(w, ms)
	if len(kept) > 0 {
		fmt.Fprintf(v.Stderr, "warning: not removed: %s; while files of the directory can't be read, what it defines can't be told (see `sandboxctl validate`)\n", strings.Join(kept, ", "))
	}
	var errs []error
	for _, name := range names {
		if !dryRun {
			if _, err := v.orderRemoval(name); err != nil {
				errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
				continue
			}
		}
		fmt.Fprintf(v.Stdout, "sandbox/%s will be removed%s\n", name, suffix)
	}
	return errors.Join(errs...)
}

// leftOut are the sandboxes on record that neither the manifests define nor the
// directory; kept are those that a file may define which can't be read now.
func leftOut(w *world.World, ms []manifest) (out, kept []string) {
	in := w.In.Desired
	empty := in.Reason == desired.ReasonDirectoryMissing || in.Reason == desired.ReasonDirectoryReplaced
	for i := range w.In.Actual.Sandboxes {
		switch rec := w.In.Actual.Sandboxes[i].Record; {
		case among(ms, rec.Name) || in.Lookup(rec.Name) != nil:
		case empty || in.Removed(rec.Name, rec.SourceFile):
			out = append(out, rec.Name)
		default:
			kept = append(kept, rec.Name)
		}
	}
	return out, kept
}

// among says whether the manifests define a name.
func among(ms []manifest, name string) bool {
	return slices.ContainsFunc(ms, func(m manifest) bool { return m.name() == name })
}

// decide finds the file of a manifest, and refuses one that is not ours.
func decide(snap *desired.Snapshot, m *manifest, dir *os.File) (*change, error) {
	name := m.name()
	file, defined := desired.FileFor(snap, name)
	own := desired.OwnFile(name)
	if defined && file != own {
		return nil, fmt.Errorf("apply %s: it is defined by %s in the manifests directory; edit that file, or remove it from there first", name, file)
	}
	c := &change{name: name, file: own, data: m.text, verb: "created"}
	if dir == nil {
		return c, nil
	}
	old, err := readBelow(dir, own)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("apply %s: %w", name, err)
	}
	docs, _ := desired.Decode(own, old)
	// A power cut leaves a file that was not synced empty or full of zeros: nothing
	// of it can be lost.
	if len(docs) == 0 && len(bytes.Trim(old, "\x00 \t\r\n")) > 0 {
		return nil, fmt.Errorf("apply %s: %s can't be read as manifests now, and may define other sandboxes; correct or remove it first", name, own)
	}
	if len(docs) > 1 || (len(docs) == 1 && docs[0].Name != name && docs[0].Name != "") {
		return nil, fmt.Errorf("apply %s: %s also defines other sandboxes; edit that file", name, own)
	}
	c.verb = "configured"
	if bytes.Equal(old, m.text) {
		c.verb = "unchanged"
	}
	return c, nil
}

// modeOf is the mode that a manifest file is written with: the one it has, since
// its owner may have kept it from others.
func modeOf(dir *os.File, file string) fs.FileMode {
	var st unix.Stat_t
	if strings.HasSuffix(file, ".secret.yaml") {
		return 0o600
	}
	if err := unix.Fstatat(int(dir.Fd()), file, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0o644
	}
	return fs.FileMode(st.Mode & 0o755) // what others may write is refused
}

func readBelow(dir *os.File, name string) ([]byte, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, yamldoc.MaxFileBytes+1))
}

// countermand takes back the order to remove a sandbox that is wanted again.
func (v verbs) countermand(name string) error {
	if !desired.ValidName(name) {
		return nil // no order is about it
	}
	store, err := v.OpenStore()
	if err != nil {
		return nil //nolint:nilerr // without a state nothing is ordered
	}
	defer store.Close()
	requests, err := store.Requests()
	if err != nil {
		return err
	}
	for _, r := range requests {
		if r.Kind == actual.RequestRemove && r.Name == name {
			return store.WithdrawRequest(r)
		}
	}
	return nil
}

// openManifests opens the manifests directory to write to it. Where it is gone, or
// another one that is empty, and sandboxes are on record that would not be defined any
// more, somebody has to say that this is meant: a disk may not be mounted, and a
// directory with one manifest would read as the wish to remove all others.
func (v verbs) openManifests(ctx context.Context, ms []manifest, flags applyFlags) (*os.File, *world.World, error) {
	w, err := v.OnceSettled(ctx)
	if err != nil {
		return nil, nil, err
	}
	certain := flags.newDirectory || !forgets(w, ms)
	switch reason := w.In.Desired.Reason; {
	case reason == desired.ReasonDirectoryMissing && !certain:
		return nil, nil, fmt.Errorf("the manifests directory %s no longer exists; mount the disk that belongs there, or, if the directory is meant to be new, run `sandboxctl apply --new-directory`", v.Manifests)
	case reason == desired.ReasonDirectoryMissing && !flags.dryRun:
		if err := atomicfile.MkdirAll(v.Manifests, 0o755); err != nil {
			return nil, nil, fmt.Errorf("create manifests directory: %w", err)
		}
	case reason == desired.ReasonDirectoryReplaced && !certain:
		return nil, nil, errors.New("the manifests directory is new and empty; mount the disk that belongs there, or, if this is intended, run `sandboxctl apply --new-directory`")
	case reason == desired.ReasonUnsettled:
		// Who owns a name can't be told.
		return nil, nil, errors.New("change manifests: " + w.In.Desired.Message + "; nothing is changed meanwhile")
	case reason == desired.ReasonDirectoryUntrusted, reason == desired.ReasonPolicyUnusable:
		return nil, nil, errors.New(w.In.Desired.Message)
	}
	dir, err := os.Open(v.Manifests)
	if errors.Is(err, fs.ErrNotExist) && flags.dryRun {
		return nil, w, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open manifests directory: %w", err)
	}
	if !flags.dryRun {
		v.NoteNotRunning(w)
	}
	return dir, w, nil
}

// forgets says whether there are sandboxes on record besides those of the manifests.
func forgets(w *world.World, ms []manifest) bool {
	for i := range w.In.Actual.Sandboxes {
		if !among(ms, w.In.Actual.Sandboxes[i].Record.Name) {
			return true
		}
	}
	return slices.ContainsFunc(w.In.Actual.Quarantined, func(h actual.Quarantined) bool { return !among(ms, h.Name) })
}
