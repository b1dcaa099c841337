// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const podmanName = "podman + runsc"

// podman is Debian's, with a storage of its own and a runtime that is not its own.
type podman struct {
	work   string
	flags  []string
	guest  guest
	image  string // what containers are made of: an image, or flags for a root
	groups string // cgroup that those of its containers are below
}

// newPodman has containers run by a runtime. A container of a directory needs no image.
func newPodman(runtime, work string, g guest, runtimeFlags ...string) (*podman, error) {
	if _, err := exec.LookPath("podman"); err != nil {
		return nil, errors.New("podman is not installed")
	}
	p := &podman{work: work, guest: g, image: "localhost/bench:1", groups: groupName + "-" + filepath.Base(work)}
	p.flags = []string{
		"--root", filepath.Join(work, "storage"), "--runroot", filepath.Join(work, "run"), "--tmpdir", filepath.Join(work, "tmp"),
		// Not every host has systemd. Nobody reads the events.
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", runtime,
	}
	for _, f := range runtimeFlags {
		p.flags = append(p.flags, "--runtime-flag", f)
	}
	if err := os.MkdirAll(filepath.Join(work, "tmp"), 0o755); err != nil {
		return nil, err
	}
	// The locks of containers are in memory that all podmans of a host share, and one with
	// a new directory frees those of all others.
	return p, os.WriteFile(p.conf(), []byte("[engine]\nlock_type = \"file\"\n"), 0o644)
}

// runscOf are the flags of runsc below podman: what our own measurements of runsc have,
// and a state directory that is removed with the measurement.
func runscOf(work string) []string {
	return []string{"root=" + filepath.Join(work, "runsc"), "network=none", "ignore-cgroups"}
}

func (p *podman) conf() string { return filepath.Join(p.work, "containers.conf") }

func (p *podman) command(args ...string) *exec.Cmd {
	cmd := apart(exec.Command("podman", slices.Concat(p.flags, args)...))
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.conf(), "TMPDIR="+filepath.Join(p.work, "tmp")) // else it copies images to /var/tmp
	return cmd
}

// container is a command that runs a container.
func (p *podman) container(flags []string, command ...string) *exec.Cmd {
	common := []string{"run", "--network", "none", "--log-driver", "none", "--cgroup-parent", "/" + p.groups}
	return p.command(slices.Concat(common, flags, []string{p.image}, command)...)
}

// run measures a container that is started → its first line.
func (p *podman) run() (time.Duration, error) {
	return firstLineOf(p.container([]string{"--rm"}, p.guest.print...))
}

// runRoot is the same with a directory as its root, and no image.
func (p *podman) runRoot() (time.Duration, error) {
	common := []string{"run", "--rm", "--network", "none", "--log-driver", "none", "--cgroup-parent", "/" + p.groups, "--rootfs", p.guest.dir}
	return firstLineOf(p.command(append(common, p.guest.print...)...))
}

// use makes an image of a tar.
func (p *podman) use(tar string) error {
	_, err := output(p.command("import", "--quiet", tar, p.image))
	return err
}

// script runs a shell script in a new container, and returns its lines with their times.
func (p *podman) script(text string) ([]line, error) {
	cmd := p.container([]string{"--rm"}, "/bin/sh", "-c", text)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var lines []line
	in := bufio.NewScanner(out)
	for in.Scan() {
		lines = append(lines, line{time.Now(), in.Text()})
	}
	if err := errors.Join(in.Err(), cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return lines, nil
}

// serve starts a container that keeps its data in a volume.
func (p *podman) serve(s server) error {
	cmd := p.container([]string{"--detach", "--name", s.name, "--user", s.user, "--volume", s.name + ":/data:U"}, "/bin/sh", "-c", s.script)
	// The runtime keeps the streams of its creator, so that they can't be pipes.
	return quietly(cmd, filepath.Join(p.work, "serve.log"))
}

func (p *podman) ask(name, script string) (string, error) {
	return output(p.command("exec", name, "/bin/sh", "-c", script))
}

func podmanID(i int) string { return fmt.Sprintf("p%04d", i) }

func (p *podman) up(n int) error {
	return inParallel(n, func(i int) error {
		log := filepath.Join(p.work, "up.log")
		return quietly(p.container([]string{"--detach", "--name", podmanID(i)}, p.guest.sleep...), log)
	})
}

func (p *podman) down(n int) error {
	return inParallel(n, func(i int) error { return p.command("rm", "--force", "--time", "0", podmanID(i)).Run() })
}

// stop removes the containers and volumes of servers.
func (p *podman) stop() error {
	_, err := output(p.command("rm", "--all", "--force", "--time", "0", "--volumes"))
	return err
}

// holds says which processes are those of containers, conmon of each included.
func (p *podman) holds(all []proc) map[int]bool {
	roots := map[int]bool{}
	for _, proc := range all {
		if mentions(proc, p.work+"/") {
			roots[proc.pid] = true
		}
	}
	return withChildren(all, roots)
}

// charged sums what the kernel counts for the cgroups of containers, in MiB.
func (p *podman) charged(int) (float64, error) {
	var dirs []string
	for _, at := range groupRoots() {
		below, err := filepath.Glob(filepath.Join(at, p.groups, "*"))
		if err != nil {
			return 0, err
		}
		dirs = append(dirs, below...)
	}
	return chargedTo(dirs)
}

func (p *podman) disk() (float64, error) { return allocated(filepath.Join(p.work, "storage")) }

// close removes everything, also after a run that has failed.
func (p *podman) close() error {
	_, err := output(p.command("rm", "--all", "--force", "--time", "0", "--volumes"))
	return errors.Join(err, p.gone(), unmountBelow(p.work), removeGroups(p.groups))
}

// gone waits for the end of processes that podman does not wait for.
func (p *podman) gone() error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		all, err := processes()
		if err != nil {
			return err
		}
		left := p.holds(all)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("podman has left processes: %v", left)
		}
		time.Sleep(poll)
	}
}

// output is what a command prints, or an error with what it says.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// quietly runs a command whose children keep its streams. What it says is added to a file.
func quietly(cmd *exec.Cmd, log string) error {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stderr = f
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return nil
}

// unmountBelow takes away what is mounted below a directory, the last mount first.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range slices.Backward(strings.Split(string(text), "\n")) {
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", f[4], err))
			}
		}
	}
	return errors.Join(errs...)
}

// allocated is what the files of a directory take on its file system, in MiB.
func allocated(dir string) (float64, error) {
	var top unix.Stat_t
	if err := unix.Stat(dir, &top); err != nil {
		return 0, err
	}
	var blocks int64
	seen := map[uint64]bool{} // files with several names
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if errors.Is(err, fs.ErrNotExist) || errors.Is(unix.Lstat(path, &st), unix.ENOENT) {
			return nil // sandboxes run, and remove files
		}
		switch {
		case err != nil:
			return err
		case st.Dev != top.Dev:
			return fs.SkipDir // a mount
		case !seen[st.Ino]:
			seen[st.Ino] = true
			blocks += st.Blocks
		}
		return nil
	})
	return float64(blocks) * 512 / (1 << 20), err
}
