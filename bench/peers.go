// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// firstLineOf runs a command and returns how long its first line took.
func firstLineOf(cmd *exec.Cmd) (time.Duration, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r := bufio.NewReader(out)
	_, err = r.ReadString('\n')
	took := time.Since(began)
	_, copyErr := io.Copy(io.Discard, r)
	if err := errors.Join(err, copyErr, cmd.Wait()); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", cmd, err, stderr.String())
	}
	return took, nil
}

// bundle makes an OCI bundle of the root and the mounts that our sandboxes have.
func bundle(dir, rootfs string, args ...string) error {
	config := fmt.Sprintf(`{"ociVersion":"1.0.2","root":{"path":%q},"process":{"args":%s,"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]},
	 "mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs"},
	  {"destination":"/dev/pts","type":"devpts","source":"devpts"},{"destination":"/dev/shm","type":"tmpfs","source":"shm"},
	  {"destination":"/sys","type":"sysfs","source":"sysfs"}],"linux":{"namespaces":[{"type":"network"},{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}}`,
		rootfs, flow(args))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644)
}

// oci is runsc or runc.
type oci struct {
	bin, work string
	flags     []string
	once      string // bundle that prints a line
	idle      string // bundle that sleeps
	serial    int
}

func newOCI(bin, work string, g guest, flags ...string) (*oci, error) {
	o := &oci{bin: bin, work: work, flags: append([]string{"--root=" + filepath.Join(work, "root")}, flags...), once: filepath.Join(work, "once"), idle: filepath.Join(work, "idle")}
	return o, errors.Join(bundle(o.once, g.dir, g.print...), bundle(o.idle, g.dir, g.sleep...))
}

func (o *oci) command(args ...string) *exec.Cmd {
	return apart(exec.Command(o.bin, append(append([]string{}, o.flags...), args...)...))
}

// close removes the sandboxes that a run has left which was ended, and the mount that
// runsc leaves.
func (o *oci) close() error {
	out, err := o.command("list", "--quiet").Output()
	if err != nil {
		return fmt.Errorf("%s list: %w", o.bin, err)
	}
	for id := range strings.FieldsSeq(string(out)) {
		err = errors.Join(err, o.command("delete", "--force", id).Run())
	}
	if err != nil {
		return err
	}
	// Commands that ran at the same time have each made a mount over the other's.
	for {
		switch err := unix.Unmount(filepath.Join(o.work, "root", "null-netns"), unix.MNT_DETACH); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
			return nil
		case err != nil:
			return err
		}
	}
}

func (o *oci) run() (time.Duration, error) {
	o.serial++
	return firstLineOf(o.command("run", "--bundle", o.once, fmt.Sprintf("once-%d", o.serial)))
}

func ociID(i int) string { return fmt.Sprintf("r%04d", i) }

// inParallel calls f for 0 to n-1, four at a time.
func inParallel(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	slots, errs := make(chan struct{}, 4), make([]error, n)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// up starts n sandboxes without pipes: a sandbox keeps the streams of its creator.
func (o *oci) up(n int) error {
	return inParallel(n, func(i int) error {
		return o.command("run", "--detach", "--bundle", o.idle, ociID(i)).Run()
	})
}

func (o *oci) down(n int) error {
	return inParallel(n, func(i int) error { return o.command("delete", "--force", ociID(i)).Run() })
}

func (o *oci) exec(i int) *exec.Cmd { return o.command("exec", ociID(i), "/bin/busybox", "true") }

func (o *oci) list() *exec.Cmd { return o.command("list") }

func (o *oci) holds(all []proc) map[int]bool {
	roots := map[int]bool{}
	for _, p := range all {
		if mentions(p, "--root="+filepath.Join(o.work, "root")) {
			roots[p.pid] = true
		}
	}
	return withChildren(all, roots)
}

// supervisor is s6 with runsc: a service is a directory that is renamed into the
// one which is watched.
type supervisor struct {
	work   string
	runsc  *oci
	scan   *exec.Cmd
	serial int
}

func newSupervisor(work string, runsc *oci) (*supervisor, error) {
	s := &supervisor{work: work, runsc: runsc}
	if err := os.MkdirAll(filepath.Join(work, "scan"), 0o755); err != nil {
		return nil, err
	}
	s.scan = apart(exec.Command("s6-svscan", filepath.Join(work, "scan")))
	return s, s.scan.Start()
}

func (s *supervisor) close() error {
	return errors.Join(exec.Command("s6-svscanctl", "-t", filepath.Join(s.work, "scan")).Run(), s.scan.Wait())
}

// run measures a service that is linked into the directory → the first line. It ends
// as its run does: 125 tells s6 not to start it again.
func (s *supervisor) run() (time.Duration, error) {
	s.serial++
	id := fmt.Sprintf("s6-%d", s.serial)
	fifo, dir, scan := filepath.Join(s.work, id+".out"), filepath.Join(s.work, id), filepath.Join(s.work, "scan")
	script := fmt.Sprintf("#!/bin/sh\nexec %s >%s\n", strings.Join(s.runsc.command("run", "--bundle", s.runsc.once, id).Args, " "), fifo)
	err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o755),
		os.WriteFile(filepath.Join(dir, "finish"), []byte("#!/bin/sh\nexit 125\n"), 0o755))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := errors.Join(os.Symlink(dir, filepath.Join(scan, id)), exec.Command("s6-svscanctl", "-a", scan).Run()); err != nil {
		return 0, err
	}
	out, err := os.Open(fifo)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	r := bufio.NewReader(out)
	_, err = r.ReadString('\n')
	took := time.Since(began)
	_, copyErr := io.Copy(io.Discard, r) // until runsc has ended
	return took, errors.Join(err, copyErr, exec.Command("s6-svunlink", scan, id).Run())
}
