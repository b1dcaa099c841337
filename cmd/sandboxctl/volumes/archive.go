// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/volume"
)

func (v verbs) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup NAME FILE",
		Short: "Write a named volume to a tar",
		Long: `Write a named volume to a tar, or with - to stdout: with owners, modes, times, extended
attributes, hard links and holes. FILE is there when it is whole.

A sandbox may run meanwhile. What the tar has then is like what a power cut leaves: a
database recovers from it if it recovers from that. Stop the sandbox for more.`,
		Example: `  sandboxctl volume backup data /root/data.tar
  sandboxctl volume backup data - | zstd >/root/data.tar.zst`,
		Args:              exit.Args("NAME", "FILE"),
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, path := args[0], args[1]
			s, err := v.open(name)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := v.warnRunning(cmd.Context(), name); err != nil {
				return err
			}
			var report volume.Report
			if path == "-" {
				report, err = s.Backup(cmd.Context(), name, v.Stdout)
			} else {
				report, err = s.backupTo(cmd.Context(), name, path)
			}
			if err != nil {
				return fmt.Errorf("back up volume %s: %w", name, err)
			}
			if report.Skipped > 0 {
				fmt.Fprintf(v.Stderr, "warning: %d sockets and devices are not in it\n", report.Skipped)
			}
			if report.Changed > 0 {
				fmt.Fprintf(v.Stderr, "warning: %d files became shorter while they were read\n", report.Changed)
			}
			fmt.Fprintf(v.Stderr, "volume/%s: %d files written\n", show.Clean(name), report.Files)
			return nil
		},
	}
}

// backupTo writes a volume to a file that is there when it is whole.
func (o *opened) backupTo(ctx context.Context, name, path string) (report volume.Report, err error) {
	// Before hours are spent on it: nothing else is replaced in the end.
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, "/"):
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return report, err
	case err != nil || !st.Mode().IsRegular():
		return report, fmt.Errorf("%s is not a regular file; name one, or - for stdout", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return report, err
	}
	defer dir.Close()
	if _, err := atomicfile.SweepTemps(dir); err != nil { // half a backup of one that was killed
		return report, err
	}
	p, err := atomicfile.Begin(dir, 0o600)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, p.Discard()) }()
	w, err := o.output(dir, p)
	if err != nil {
		return report, err
	}
	if report, err = o.Backup(ctx, name, w); err != nil {
		return report, err
	}
	return report, p.Commit(filepath.Base(path))
}

// output is what a backup is written to: on the disk of the state directory only as long as
// sandboxes have room there.
func (o *opened) output(dir *os.File, w io.Writer) (io.Writer, error) {
	there, err := dir.Stat()
	if err != nil {
		return nil, err
	}
	state, err := o.state.RootDir().Stat()
	if err != nil {
		return nil, err
	}
	if there.Sys().(*syscall.Stat_t).Dev != state.Sys().(*syscall.Stat_t).Dev {
		return w, nil
	}
	return &roomy{w, room.NewGauge(dir)}, nil
}

// roomy writes while there is room.
type roomy struct {
	io.Writer
	disk *room.Gauge
}

func (r *roomy) Write(b []byte) (int, error) {
	if err := r.disk.Grow(len(b)); err != nil {
		return 0, err
	}
	return r.Writer.Write(b)
}

// warnRunning tells which sandboxes run with a volume.
func (v verbs) warnRunning(ctx context.Context, name string) error {
	w, err := v.OnceUnjudged(ctx)
	if err != nil {
		return err
	}
	for i := range w.In.Actual.Sandboxes {
		rec := w.In.Actual.Sandboxes[i].Record
		e, err := desired.FromCanonical(rec.Spec, rec.SourceFile)
		if err != nil || rec.Phase == actual.PhaseStopped {
			continue
		}
		if slices.ContainsFunc(e.Sandbox.Spec.Volumes, func(vol desired.Volume) bool { return vol.Volume != nil && vol.Volume.Name == name && !vol.ReadOnly }) {
			fmt.Fprintf(v.Stderr, "warning: %s runs with it: the backup is as after a power cut; `sandboxctl stop %s` first for more\n", show.Clean(rec.Name), show.Clean(rec.Name))
		}
	}
	return nil
}

func (v verbs) restoreCommand() *cobra.Command {
	var size string
	cmd := &cobra.Command{
		Use:   "restore NAME FILE",
		Short: "Make a named volume of a tar",
		Long: `Make a named volume of a tar, or with - of stdin: one of volume backup, or of another
program. The volume must not be there yet, and is there when it is whole. Nothing in the
archive reaches a file outside of the volume; one that tries is refused, as is one that was
cut short, has devices, is the image of a disk, or is larger than the disk has room for: a
tenth of it, at most 1 GiB, stays free. A size that the volume is declared to have counts
while it is unpacked.`,
		Example: `  sandboxctl volume restore data /root/data.tar
  zstd -dc /root/data.tar.zst | sandboxctl volume restore data -`,
		Args: exit.Args("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var most scalar.Bytes
			if size != "" {
				if err := most.UnmarshalJSON([]byte(`"` + size + `"`)); err != nil {
					return &exit.Error{Code: exit.Usage, Err: fmt.Errorf("--max-size: %w", err)}
				}
			}
			w, err := v.OnceUnjudged(cmd.Context())
			if err != nil {
				return err
			}
			declared := w.In.Desired.VolumeSizes()[args[0]]
			state, err := actual.OpenStore(v.State)
			if err != nil {
				return err
			}
			defer func() { _ = state.Close() }()
			s, err := volume.Open(state.RootDir())
			if err != nil {
				return err
			}
			defer s.Close()
			from := v.Stdin
			if args[1] != "-" {
				f, err := os.OpenFile(args[1], os.O_RDONLY|unix.O_NOCTTY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				from = f
			}
			if err := s.Restore(cmd.Context(), args[0], from, volume.Limits{Bytes: int64(most), Size: int64(declared)}); err != nil {
				return fmt.Errorf("restore volume %s: %w", args[0], err)
			}
			fmt.Fprintf(v.Stdout, "volume/%s restored\n", show.Clean(args[0]))
			return nil
		},
	}
	cmd.Flags().StringVar(&size, "max-size", "", "the most that its files may have together, holes too (default what is free on the disk)")
	return cmd
}
