// SPDX-License-Identifier: Apache-2.0

// Package cp is the verb cp: it copies files between this host and a running sandbox, and
// prints how far it is.
package cp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/filecopy"
	"sandboxctl.dev/launcher/sentry"
)

type flags struct {
	archive, follow, keepLinks, quiet bool
	chown, maxSize                    string
	maxFiles                          int64
}

// Command is the verb cp.
func Command(h *world.Host) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "cp SRC DST",
		Short: "Copy files into a sandbox or out of it",
		Long: `Copy a file or a directory from this host into a running sandbox, or out of it.
One of SRC and DST is NAME:PATH, the other one a path of this host (./a:b if it has a
colon) or - for a tar on standard input or output. No program in the sandbox is needed.
It is done as root of the sandbox, which sees its root, its volumes and its mounts.

If DST is a directory, the copy is in it, under the name that it has in SRC; else the
copy is DST. A tar on standard input is unpacked in DST, which is a directory.

Modes and times are kept. The owner is root in a sandbox, and you on this host, if
neither --archive nor --chown says another one. On this host nothing gets the set-user-ID
or set-group-ID bit.

Symbolic links are copied as links. Those that lead out of what is copied out of a
sandbox are left out, with a warning, unless --keep-links is given. Sockets, fifos and
devices are never copied, with a warning. Hard links become files of their own, and
zeros become holes.

On this host a copy has its name when all of it is there, and replaces a file, but never
a directory. In a sandbox each file is replaced when it is whole, and directories that are
there are written to.

The first SIGINT or SIGTERM ends a copy, also one whose pipe nobody reads: exit code 130
or 143. On this host nothing of it is left, in a sandbox the files that were whole.`,
		Example: `  sandboxctl cp web:/var/log/app.log .
  sandboxctl cp ./site web:/srv             # /srv/site
  sandboxctl cp --chown 33:33 index.html web:/srv/site/index.html
  sandboxctl cp web:/etc - | tar tv
  tar c -C dist . | sandboxctl cp - web:/srv/site`,
		Args: exit.Args("SRC", "DST"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 1 || strings.ContainsAny(typed, "/:.") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			names, _ := h.CompleteNames(cmd, nil, typed)
			for i := range names {
				names[i] += ":/"
			}
			return names, cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), h, args[0], args[1]) },
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.archive, "archive", "a", false, "keep the numbers of owners and groups")
	fl.BoolVarP(&f.follow, "follow-link", "L", false, "if SRC is a symbolic link in a sandbox, copy what it leads to")
	fl.BoolVar(&f.keepLinks, "keep-links", false, "copy symbolic links of a sandbox that lead out of what is copied")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print no progress and no summary")
	fl.StringVar(&f.chown, "chown", "", "UID:GID of the copy, in numbers")
	fl.StringVar(&f.maxSize, "max-size", "16Gi", "the most bytes that are copied, holes of files too")
	fl.Int64Var(&f.maxFiles, "max-files", 1_000_000, "the most files and directories that are copied")
	return cmd
}

// options are those of the copy.
func (f *flags) options(into bool) (filecopy.Options, error) {
	o := filecopy.Options{Entries: f.maxFiles, Archive: f.archive, UID: -1, GID: -1, KeepLinks: f.keepLinks}
	var most scalar.Bytes
	if err := most.UnmarshalJSON([]byte(strconv.Quote(f.maxSize))); err != nil || most <= 0 {
		return o, exit.Usagef("--max-size: expected a size such as 500Mi or 2Gi, got %q", f.maxSize)
	}
	o.Size = int64(most)
	if f.maxFiles < 1 {
		return o, exit.Usagef("--max-files: expected a number of at least 1, got %d", f.maxFiles)
	}
	switch {
	case f.chown != "" && f.archive:
		return o, exit.Usagef("--archive keeps owners, and --chown changes them: give one of them")
	case f.chown != "":
		uid, gid, both := strings.Cut(f.chown, ":")
		u, uerr := strconv.ParseUint(uid, 10, 32)
		g, gerr := strconv.ParseUint(gid, 10, 32)
		if !both || uerr != nil || gerr != nil || u == 1<<32-1 || g == 1<<32-1 {
			return o, exit.Usagef("--chown: expected UID:GID in numbers, got %q", f.chown)
		}
		o.UID, o.GID = int(u), int(g)
	case into && !f.archive:
		o.UID, o.GID = 0, 0
	}
	return o, nil
}

func (f *flags) run(ctx context.Context, h *world.Host, src, dst string) error {
	from, to, err := parsePlaces(src, dst)
	if err != nil {
		return err
	}
	o, err := f.options(to.sandbox != "")
	if err != nil {
		return err
	}
	if to.stream() && show.IsTerminal(h.Stdout) {
		return exit.Usagef("standard output is a terminal, which a tar must not be written to; redirect it")
	}
	if from.stream() && show.IsTerminal(h.Stdin) {
		return exit.Usagef("standard input is a terminal; expected a tar")
	}
	store, err := h.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	control, _, err := h.Connect(ctx, store, from.sandbox+to.sandbox)
	if err != nil {
		return err
	}
	defer control.Close()
	progress := &progress{w: h.Stderr, on: !f.quiet && show.IsTerminal(h.Stderr)}
	o.Progress = progress.at
	transfer := func() (filecopy.Report, error) { return f.in(ctx, h, control, from, to, o) }
	if from.sandbox != "" {
		transfer = func() (filecopy.Report, error) { return f.out(ctx, h, control, from, to, o) }
	}
	if from.stream() || to.stream() {
		transfer = unlessInterrupted(ctx, transfer)
	}
	report, err := transfer()
	progress.end()
	if errors.Is(err, io.ErrUnexpectedEOF) && !from.stream() {
		err = fmt.Errorf("it was cut short, as when the sandbox ends or a checkpoint of it is made: %w", err)
	}
	if err != nil {
		return exit.Interrupted(ctx, fmt.Errorf("copy %s to %s: %w", src, dst, err))
	}
	if report.Links > 0 {
		fmt.Fprintf(h.Stderr, "warning: %d symbolic links lead out of what was copied and were left out; --keep-links copies them\n", report.Links)
	}
	if report.Skipped > 0 {
		fmt.Fprintf(h.Stderr, "warning: %d sockets, fifos and devices were left out\n", report.Skipped)
	}
	if !f.quiet {
		fmt.Fprintf(h.Stderr, "%d files copied, %d bytes\n", report.Files, report.Bytes)
	}
	return nil
}

// unlessInterrupted ends a copy from or to a pipe with the first signal: who reads or writes
// its other end may not do so any more, and this program waits in the kernel then. Nothing is
// lost by leaving it there: a tar that was written in part has no end, and of one that was read
// in part the sandbox removes the file that is not whole.
func unlessInterrupted(ctx context.Context, transfer func() (filecopy.Report, error)) func() (filecopy.Report, error) {
	type result struct {
		report filecopy.Report
		err    error
	}
	return func() (filecopy.Report, error) {
		done := make(chan result, 1)
		go func() {
			r, err := transfer()
			done <- result{r, err}
		}()
		select {
		case r := <-done:
			return r.report, r.err
		case <-ctx.Done():
			return filecopy.Report{}, context.Cause(ctx)
		}
	}
}

// out copies out of a sandbox.
func (f *flags) out(ctx context.Context, h *world.Host, control *sentry.Control, from, to place, o filecopy.Options) (filecopy.Report, error) {
	c, err := control.CopyOut(ctx, from.path, f.follow)
	if err != nil {
		return filecopy.Report{}, err
	}
	defer func() { _ = c.Close() }() // what it has is read
	var skipped int64
	finish := func() error {
		r, err := c.Finish()
		if r != nil {
			skipped = r.Skipped
		}
		return err
	}
	var report filecopy.Report
	if to.stream() {
		report, err = filecopy.Rewrite(h.Stdout, c.FrameReader, o, finish)
	} else {
		dir, name, derr := to.destination(from.base())
		if derr != nil {
			return report, derr
		}
		defer dir.Close()
		report, err = filecopy.Extract(dir, name, c.FrameReader, o, finish)
	}
	if err != nil && errors.Is(err, io.ErrUnexpectedEOF) {
		// What stands there then is the reason, if the sentry has one.
		if ferr := finish(); ferr != nil && !errors.Is(ferr, io.ErrUnexpectedEOF) {
			err = ferr
		}
	}
	report.Skipped += max(skipped, 0)
	return report, err
}

// in copies into a sandbox.
func (f *flags) in(ctx context.Context, h *world.Host, control *sentry.Control, from, to place, o filecopy.Options) (report filecopy.Report, err error) {
	pack := func(w io.Writer) (filecopy.Report, error) { return filecopy.PackStream(w, h.Stdin, o) }
	if !from.stream() {
		file, name, err := from.source()
		if err != nil {
			return report, err
		}
		defer file.Close()
		pack = func(w io.Writer) (filecopy.Report, error) { return filecopy.Pack(w, file, name, o) }
	}
	c, err := control.CopyIn(ctx, to.path, from.stream())
	if err != nil {
		return report, err
	}
	defer func() { _ = c.Close() }() // how it went was said
	report, err = pack(c.FrameWriter)
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return report, err
	}
	// The sentry's reason is the one why nothing more could be sent.
	if _, ferr := c.Finish(); ferr != nil {
		return report, ferr
	}
	return report, err
}

// progress prints on a terminal how much was copied.
type progress struct {
	w  io.Writer
	on bool

	mu   sync.Mutex // a copy that was left waiting may go on meanwhile
	last time.Time
	any  bool
}

const progressEvery = 300 * time.Millisecond

func (p *progress) at(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || time.Since(p.last) < progressEvery {
		return
	}
	p.last, p.any = time.Now(), true
	fmt.Fprintf(p.w, "\r%d MiB", n>>20)
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.any {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.on = false
}
