// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// config is what the command line says.
type config struct {
	bin, work, out string
	tree           string // tar of a root, for images
	only           string
	rounds         int // of single starts and of verbs
	bursts         int // of what many sandboxes take
	fleet          int
	many           int // manifests
	adopted        int
	crowd          int
	image          int           // MiB
	idle           time.Duration // of the daemon
	peers          bool
}

func main() {
	do := run
	if len(os.Args) > 1 && os.Args[1] == loadCommand {
		do = func() error { return runLoad(os.Args[2:]) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var cfg config
	flag.StringVar(&cfg.bin, "bin", "bin", "directory of sandboxctl, its sentry and gofer, and runsc of the same gVisor")
	flag.StringVar(&cfg.out, "out", "bin/bench", "directory for results.json, table.md and chart.svg")
	flag.StringVar(&cfg.only, "only", "", "parts to measure, with commas between: starts, fleets, changes, adoption, crowd, images-run, networks, pulls (default: all)")
	flag.StringVar(&cfg.tree, "tree", "", "tar of a Debian with Redis and PostgreSQL, of which images-run makes images, and whose Redis networks measures (default: debian.tar in -bin, made with mmdebstrap if it is not there)")
	flag.IntVar(&cfg.rounds, "rounds", 21, "rounds of single starts and of verbs")
	flag.IntVar(&cfg.bursts, "bursts", 5, "rounds of many sandboxes at once, and of pulls")
	flag.IntVar(&cfg.fleet, "fleet", 50, "sandboxes at once")
	flag.IntVar(&cfg.many, "many", 10000, "manifests of which one changes")
	flag.IntVar(&cfg.adopted, "adopted", 200, "sandboxes that a new daemon adopts")
	flag.IntVar(&cfg.crowd, "crowd", 1000, "idle sandboxes to measure the memory of, 0 for none")
	flag.IntVar(&cfg.image, "image", 1024, "size in MiB of the image that is pulled and imported; needs six times as much of the disk")
	flag.DurationVar(&cfg.idle, "idle", 30*time.Second, "how long to look at the idle daemon")
	flag.BoolVar(&cfg.peers, "peers", true, "compare with runsc, which -bin must have, and with podman, runc and s6 where they are installed; pulls with skopeo and tar")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Usage: bench [flags], as root on an idle machine. Examples:\n\n  bench\n  bench -only starts,fleets -rounds 41\n  bench -only pulls -bursts 11\n\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("sandboxes need root")
	}
	// A measurement that is interrupted ends as one that failed, and cleans up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	b := &bench{ctx: ctx, cfg: cfg, out: os.Stderr}
	parts, err := b.parts()
	if err != nil {
		return err
	}
	b.cfg.tree = cmp.Or(b.cfg.tree, filepath.Join(b.cfg.bin, "debian.tar"))
	for _, p := range []*string{&b.cfg.bin, &b.cfg.out, &b.cfg.tree} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if b.cfg.work, err = os.MkdirTemp("", "sandboxctl-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.removeWork()) }()
	// Manifests are not believed where others may write, and the sandboxed user reads the root.
	if err := os.Chmod(b.cfg.work, 0o755); err != nil {
		return err
	}
	if err := b.copyPrograms(); err != nil {
		return err
	}
	if b.group, err = enterGroup(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.group.leave()) }()
	m := describeMachine(b.cfg.bin, b.cfg.work)
	if err := b.measure(parts); err != nil {
		return err
	}
	m.LoadAfter = load()
	return write(newReport(m, b.rows), b.cfg.out)
}

// copyPrograms has the run measure copies of the programs, as an installation makes
// them. A file that the linker wrote page by page starts 15 % slower than its copy.
func (b *bench) copyPrograms() error {
	programs, err := filepath.Glob(filepath.Join(b.cfg.bin, "*"))
	if err != nil {
		return err
	}
	to := filepath.Join(b.cfg.work, "bin")
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, p := range programs {
		if name := filepath.Base(p); name == "runsc" || strings.HasPrefix(name, "sandboxctl") {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, name), data, 0o755); err != nil {
				return err
			}
		}
	}
	b.cfg.bin = to
	return nil
}

type part struct {
	name string
	run  func() error
}

// parts are those that were asked for.
func (b *bench) parts() ([]part, error) {
	all := []part{{"starts", b.starts}, {"fleets", b.fleets}, {"changes", b.changes}, {"adoption", b.adoption}, {"crowd", b.crowd}, {"images-run", b.imagesRun}, {"networks", b.networks}, {"pulls", b.pulls}}
	if b.cfg.only == "" {
		return all, nil
	}
	var out []part
	for name := range strings.SplitSeq(b.cfg.only, ",") {
		found := false
		for _, p := range all {
			if p.name == name {
				out, found = append(out, p), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-only: there is no part %q; there are starts, fleets, changes, adoption, crowd, images-run, networks and pulls", name)
		}
	}
	return out, nil
}

func (b *bench) measure(parts []part) (err error) {
	rootfs := filepath.Join(b.cfg.work, "rootfs")
	if err := makeRoot(rootfs); err != nil {
		return err
	}
	defer func() {
		if b.ctx.Err() != nil {
			b.progress("interrupted: removing what was started")
		}
		closeErr := b.close()
		b.left = closeErr != nil
		err = errors.Join(err, closeErr)
	}()
	if err := b.open(rootfs); err != nil {
		return err
	}
	for _, p := range parts {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err := p.run(); err != nil {
			return err
		}
	}
	return nil
}

// removeWork removes the directory of the run, unless sandboxes may be left: with
// their records gone, nothing could remove them any more.
func (b *bench) removeWork() error {
	if b.left {
		return fmt.Errorf("not everything that was started is gone; %s is kept: `SANDBOXCTL_STATE=%[1]s/ours/state SANDBOXCTL_MANIFESTS=%[1]s/ours/manifests sandboxctl get` shows the sandboxes, with images instead of ours those of an image, with networks those on networks", b.cfg.work)
	}
	return os.RemoveAll(b.cfg.work)
}

// makeRoot makes a root of one static program, for every subject.
func makeRoot(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("the sandboxes run a static busybox (apt-get install busybox-static): %w", err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "bin", "busybox"), data, 0o755)
}

// write puts the results into a directory and the table on standard output.
func write(rep report, dir string) error {
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"results.json": string(data) + "\n", "table.md": rep.markdown(), "chart.svg": rep.svg()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err = fmt.Print(rep.markdown())
	return err
}
