// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher/warm"
	"sandboxctl.dev/launcher/wire"
)

// host is a daemon on a scratch directory.
type host struct {
	b         testing.TB
	work      string
	manifests string
	state     string
	daemon    *exec.Cmd
	store     *actual.Store
}

// daemonHost runs a daemon, which inherits the files given, and whose policy
// allows everything below its directory.
func daemonHost(b testing.TB, inherit ...*os.File) *host {
	b.Helper()
	return hostStartedBy(b, "", inherit...)
}

// hostStartedBy is daemonHost with a daemon that a shell starts after the
// commands given.
func hostStartedBy(b testing.TB, shell string, inherit ...*os.File) *host {
	b.Helper()
	hosttest.NeedsRoot(b, "sandboxes need root")
	work := b.TempDir()
	// Whatever the umask is: manifests are not believed where others may write.
	if err := os.Chmod(work, 0o755); err != nil {
		b.Fatal(err)
	}
	h := &host{b: b, work: work, manifests: filepath.Join(work, "m"), state: filepath.Join(work, "s")}
	h.must(os.Mkdir(h.manifests, 0o755))
	h.must(os.WriteFile(filepath.Join(work, "policy.yaml"), []byte(policyFor(work)), 0o644))
	h.rootfs()
	h.daemon = h.command("daemon", "--allow-mass-delete")
	if shell != "" {
		env := h.daemon.Env
		h.daemon = exec.Command("bash", append([]string{"-c", shell + "\nexec \"$@\"", "bash"}, h.daemon.Args...)...)
		h.daemon.Env = env
	}
	log, err := os.Create(filepath.Join(work, "daemon.log"))
	h.must(err)
	h.daemon.Stderr = log
	h.daemon.ExtraFiles = inherit // not close-on-exec
	h.must(h.daemon.Start())
	b.Cleanup(func() {
		if b.Failed() {
			said, _ := os.ReadFile(log.Name())
			b.Logf("the daemon said at last: %s", said[max(0, len(said)-8000):])
		}
		// runsc leaves a mount in its root directory.
		_ = unix.Unmount(h.work+"/runsc/null-netns", unix.MNT_DETACH)
		h.clear()
		_ = h.daemon.Process.Signal(unix.SIGTERM)
		if err := h.daemon.Wait(); err != nil {
			b.Errorf("daemon: %v", err)
		}
		if h.store != nil {
			h.store.Close()
		}
	})
	h.until("the daemon", func() bool {
		h.store, err = actual.OpenStoreReadOnly(h.state)
		return err == nil
	})
	return h
}

func (h *host) must(err error) {
	h.b.Helper()
	if err != nil {
		h.b.Fatal(err)
	}
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), args...)
	cmd.Env = append(os.Environ(), "SANDBOXCTL_MANIFESTS="+h.manifests, "SANDBOXCTL_STATE="+h.state, "SANDBOXCTL_POLICY="+filepath.Join(h.work, "policy.yaml"))
	return cmd
}

func (h *host) until(what string, ok func() bool) {
	h.b.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			h.b.Fatalf("%s: not in two minutes", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// rootfs is a root of one static file.
func (h *host) rootfs() {
	h.b.Helper()
	bin := filepath.Join(h.work, "rootfs", "bin")
	h.must(os.MkdirAll(bin, 0o755))
	busybox, err := exec.LookPath("busybox")
	h.must(err)
	data, err := os.ReadFile(busybox)
	h.must(err)
	h.must(os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755))
}

// drop renames a manifest into the directory and returns when that was.
func (h *host) drop(name, spec string) time.Time {
	h.b.Helper()
	return h.dropRoot(name, "{dir: "+h.work+"/rootfs}", spec)
}

// dropRoot is drop with another root.
func (h *host) dropRoot(name, root, spec string) time.Time {
	h.b.Helper()
	text := fmt.Sprintf("apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: %s\n%s", name, root, spec)
	tmp := filepath.Join(h.work, name+".tmp")
	h.must(os.WriteFile(tmp, []byte(text), 0o644))
	at := time.Now()
	h.must(os.Rename(tmp, filepath.Join(h.manifests, name+".yaml")))
	return at
}

// keeps has the daemon keep processes waiting, as a line of the host policy says it.
func (h *host) keeps(line string) {
	h.b.Helper()
	h.must(os.WriteFile(filepath.Join(h.work, "policy.yaml"), []byte(policyFor(h.work)+line+"\n"), 0o644))
}

// waiting waits until two sentries wait for a sandbox.
func (h *host) waiting() {
	h.b.Helper()
	h.until("processes that wait", func() bool { return waits(h.state) >= 2 })
}

// waits is how many sentries wait for a sandbox of a state directory and have prepared
// themselves: their priority is the usual one again.
func waits(state string) (n int) {
	dir, err := os.Open(state)
	if err != nil {
		return 0
	}
	defer dir.Close()
	ids, err := warm.Read(dir)
	if err != nil {
		return 0
	}
	for i := range ids {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", ids[i].PID))
		if err != nil || !strings.HasPrefix(string(cmdline), wire.WaitingName+"\x00sentry\x00") {
			continue
		}
		if attr, err := unix.SchedGetAttr(ids[i].PID, 0); err == nil && attr.Policy == unix.SCHED_NORMAL {
			n++
		}
	}
	return n
}

func (h *host) clear() {
	h.b.Helper()
	files, err := filepath.Glob(filepath.Join(h.manifests, "*.yaml"))
	h.must(err)
	for _, f := range files {
		h.must(os.Remove(f))
	}
	if h.store == nil {
		return // the daemon never came up
	}
	h.until("removal", func() bool {
		l, err := h.store.List()
		return err == nil && len(l.Records) == 0
	})
}

// firstLine is when the application of an attempt wrote its first line.
func (h *host) firstLine(name string, attempt int64) time.Time {
	h.b.Helper()
	var at time.Time
	dir := filepath.Join(h.state, "sandboxes", name, "logs", strconv.FormatInt(attempt, 10))
	h.until("output of "+name, func() bool {
		f := sandboxlog.NewFollower(os.DirFS(dir), "app.log")
		defer f.Close()
		err := f.Next(func(e sandboxlog.Entry) error {
			at = e.At
			return io.EOF
		})
		return errors.Is(err, io.EOF)
	})
	return at
}

// cpu is the processor time of all threads of a process.
func cpu(b testing.TB, pid int) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		b.Fatal(err)
	}
	var sum int64
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum)
}
