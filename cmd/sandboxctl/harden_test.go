// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/proc/proctest"
)

// intruderEnv makes the test program an intruder: it tries to reach every path
// on standard input and prints those it could.
const intruderEnv = "SANDBOXCTL_TEST_INTRUDER"

// hookedBundle is a bundle whose hook writes its OOM score and umask into the
// file "seen".
func (h *host) hookedBundle(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(h.work, "hooked")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"ociVersion":"1.0.2","root":{"path":%q},
		"process":{"args":["/bin/busybox","sleep","1000"],"cwd":"/","user":{}},
		"hooks":{"createRuntime":[{"path":"/bin/sh","args":["sh","-c","sleep 0.2; (cat /proc/self/oom_score_adj; umask) | tr '\\n' ' ' > %s/seen"]}]}}`,
		h.work+"/rootfs", dir), 0o644))
	return dir
}

// family is a process and all that descend from it.
func family(t *testing.T, pid int) []int {
	t.Helper()
	out := []int{pid}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for c := range strings.FieldsSeq(string(b)) {
			n, err := strconv.Atoi(c)
			must(t, err)
			out = append(out, family(t, n)...)
		}
	}
	return out
}

// intrude is what an unprivileged user of the host can do to a path whose name
// it knows.
func intrude() {
	b, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Println(err)
		return
	}
	for path := range strings.FieldsFuncSeq(string(b), func(r rune) bool { return r == 0 }) {
		for how, flags := range map[string]int{"read": unix.O_RDONLY, "write": unix.O_WRONLY, "append": unix.O_RDWR | unix.O_APPEND, "path": unix.O_PATH} {
			// Neither waits for the other side of a fifo nor follows links.
			fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			if how == "read" {
				// Some files of /proc refuse only then.
				_, err = unix.Read(fd, make([]byte, 1))
			}
			if err == nil {
				fmt.Printf("%s %s\n", how, path)
			}
			unix.Close(fd)
		}
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			if unix.Connect(s, &unix.SockaddrUnix{Name: path}) == nil {
				fmt.Printf("connect %s\n", path)
			}
			unix.Close(s)
		}
		for how, try := range map[string]func() error{
			"remove": func() error { return unix.Unlink(path) }, "list": func() error { _, err := os.ReadDir(path); return err },
			"rename": func() error { return unix.Rename(path, path+"~") }, "mode": func() error { return unix.Chmod(path, 0o777) },
			"make": func() error { return unix.Mkdir(path+"/intruder", 0o755) },
		} {
			if try() == nil {
				fmt.Printf("%s %s\n", how, path)
			}
		}
	}
}

// asNobody has an unprivileged user try to reach paths.
func asNobody(t *testing.T, paths []string) string {
	t.Helper()
	// Where that user can execute it.
	self, err := os.Executable()
	must(t, err)
	b, err := os.ReadFile(self)
	must(t, err)
	dir, err := os.MkdirTemp("", "sandboxctl-intruder-")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	prog := filepath.Join(dir, "intruder")
	must(t, proctest.WriteProgram(prog, b, 0o755))
	cmd := exec.Command(prog)
	cmd.Env = []string{intruderEnv + "=1"}
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	must(t, err)
	return string(out)
}

// wantModes are the modes of everything below the state of a daemon that has been
// made to do everything, one line a kind of file.
var wantModes = []string{
	"d 0700 0 .",
	"s 0600 0 client.sock",
	"- 0600 0 daemon.json",
	"- 0600 0 daemon.lock",
	"- 0600 0 events.jsonl",
	"d 0700 0 images",
	"d 0700 0 images/pulls",
	"d 0700 0 images/refs",
	"- 0600 0 progress.json",
	"d 0700 0 requests",
	"d 0700 0 reserve",
	"- 0600 0 reserve/slot-N",
	"d 0700 0 sandboxes",
	"d 0700 0 sandboxes/NAME",
	"s 0755 0 sandboxes/NAME/control.sock",
	"- 0600 0 sandboxes/NAME/exit.json",
	"p 0600 0 sandboxes/NAME/startreport",
	"- 0600 0 sandboxes/NAME/gofer-exit.json",
	"d 0700 0 sandboxes/NAME/logs",
	"d 0700 0 sandboxes/NAME/logs/N",
	"d 0700 100000 sandboxes/NAME/logs/N",
	"- 0600 0 sandboxes/NAME/logs/N/app.log",
	"- 0600 100000 sandboxes/NAME/logs/N/app.log",
	"- 0600 0 sandboxes/NAME/logs/N/gofer.log",
	"- 0600 0 sandboxes/NAME/logs/N/sentry.log",
	"- 0600 100000 sandboxes/NAME/logs/N/sentry.log",
	"- 0600 0 sandboxes/NAME/meta.json",
	"- 0600 0 sandboxes/NAME/meta.running.json",
	"- 0600 0 sandboxes/NAME/setup.json",
	"- 0600 0 sandboxes/NAME/TEMPORARY",
	"d 0700 0 trash",
}

// modes lists what is below a state directory, with names of sandboxes and
// numbers of attempts taken out.
func modes(t *testing.T, state string) (lines, paths []string) {
	t.Helper()
	temporary := regexp.MustCompile(`\.sandboxctl-tmp-[0-9a-f]+$`)
	name, attempt := regexp.MustCompile(`^(sandboxes/)[^/]+`), regexp.MustCompile(`(/logs/|/slot-)\d+`)
	must(t, filepath.WalkDir(state, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has just been replaced
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		rel, err := filepath.Rel(state, p)
		if err != nil {
			return err
		}
		rel = temporary.ReplaceAllString(rel, "TEMPORARY")
		rel = attempt.ReplaceAllString(name.ReplaceAllString(rel, "${1}NAME"), "${1}N")
		kind := map[fs.FileMode]string{0: "-", fs.ModeDir: "d", fs.ModeSocket: "s", fs.ModeNamedPipe: "p", fs.ModeSymlink: "l"}[info.Mode().Type()]
		lines = append(lines, fmt.Sprintf("%s %04o %d %s", kind, info.Mode().Perm(), info.Sys().(*syscall.Stat_t).Uid, rel))
		paths = append(paths, p)
		return nil
	}))
	slices.Sort(lines)
	return slices.Compact(lines), paths
}

// What the daemon, its state and its sandboxes are to the rest of the host.
// The daemon is started with a umask that keeps nothing from anybody.
func TestHardened(t *testing.T) {
	requireHost(t)
	old := unix.Umask(0)
	h := daemonHost(t)
	unix.Umask(old)
	// The walk must not end at a directory of the test's own.
	for dir := h.work; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	bundle := h.hookedBundle(t)
	const app = "  command: [/bin/busybox, sh, -c, 'echo said; exec /bin/busybox sleep 1000']\n  terminationGracePeriod: 0s\n"
	h.drop("plain", app)
	h.drop("mapped", app+"  idMappings: {uids: [{containerID: 0, hostID: 100000, size: 1000}], gids: [{containerID: 0, hostID: 100000, size: 1000}]}\n")
	h.dropRoot("hooked", "{bundle: "+bundle+"}", "  terminationGracePeriod: 0s\n")
	running := map[string]*actual.Record{}
	for _, name := range []string{"plain", "mapped", "hooked"} {
		h.until(name, func() bool {
			rec, _, _ := h.store.Get(name)
			running[name] = rec
			return rec != nil && rec.Phase == actual.PhaseRunning
		})
		if name != "hooked" {
			h.firstLine(name, 1)
		}
	}
	pid := h.daemon.Process.Pid

	t.Run("modes", func(t *testing.T) {
		got, paths := modes(t, h.state)
		for _, l := range got {
			if !slices.Contains(wantModes, l) {
				t.Errorf("not expected: %s", l)
			}
		}
		for _, l := range wantModes {
			// Most sentries log nothing, and writing is short.
			if !slices.Contains(got, l) && !strings.HasSuffix(l, "sentry.log") && !strings.HasSuffix(l, "TEMPORARY") {
				t.Errorf("missing: %s", l)
			}
		}
		if out := asNobody(t, paths[1:]); out != "" {
			t.Errorf("nobody could:\n%s", out)
		}
		// Of the directory itself there is the name only.
		if out := asNobody(t, paths[:1]); out != "path "+h.state+"\n" {
			t.Errorf("nobody could: %s", out)
		}
		// The intruder can do something: this test is able to fail.
		open := filepath.Join(h.work, "open")
		must(t, os.WriteFile(open, nil, 0o666))
		must(t, os.Chmod(open, 0o666))
		if out := asNobody(t, []string{open}); !strings.Contains(out, "read "+open) || !strings.Contains(out, "write "+open) {
			t.Errorf("nobody could not open %s: %s", open, out)
		}
	})

	// Sentries are nobody's processes too, but in another user namespace: who is
	// nobody on the host sees how many descriptors they have, and no more.
	t.Run("processes", func(t *testing.T) {
		var paths, sentries []string
		for _, name := range []string{"plain", "mapped"} {
			sentries = append(sentries, fmt.Sprintf("list /proc/%d/fd", running[name].Sentry.PID), fmt.Sprintf("list /proc/%d/ns", running[name].Sentry.PID))
		}
		for _, p := range []int{pid, running["plain"].Sentry.PID, running["plain"].Gofer.PID, running["mapped"].Sentry.PID, running["mapped"].Gofer.PID} {
			for _, f := range []string{"mem", "maps", "environ", "root", "cwd", "exe", "fd", "map_files", "ns", "auxv", "stack", "syscall", "personality", "io"} {
				paths = append(paths, fmt.Sprintf("/proc/%d/%s", p, f))
			}
			fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p))
			must(t, err)
			paths = append(paths, fds...)
		}
		for line := range strings.Lines(asNobody(t, paths)) {
			// A name that leads nowhere, of what can be listed by everybody.
			if how, _, _ := strings.Cut(line, " "); how != "path" && !slices.Contains(sentries, strings.TrimSpace(line)) {
				t.Errorf("nobody could: %s", line)
			}
		}
	})

	t.Run("daemon", func(t *testing.T) {
		for file, want := range map[string]string{
			"limits": `(?m)^Max core file size +0 +0 `,
			"status": `(?m)^Umask:\s+0022$`,
		} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			must(t, err)
			if !regexp.MustCompile(want).Match(b) {
				t.Errorf("%s is %s, expected %s", file, b, want)
			}
		}
		for name, rec := range running {
			for _, p := range append([]int{rec.Gofer.PID}, family(t, rec.Sentry.PID)...) {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", p))
				if got := strings.TrimSpace(string(b)); err != nil || got != strconv.Itoa(proc.SandboxOOMScore) {
					t.Errorf("%s: OOM score of %d is %s (%v), expected %d", name, p, got, err, proc.SandboxOOMScore)
				}
			}
		}
		b, err := os.ReadFile(filepath.Join(bundle, "seen"))
		must(t, err)
		if want := fmt.Sprintf("%d 0022 ", proc.SandboxOOMScore); string(b) != want {
			t.Errorf("the hook has %q, expected %q", b, want)
		}
	})

	// There is no listener that is not a file, and one that is: the socket of clients, with the
	// connections that it has.
	t.Run("listeners", func(t *testing.T) {
		own := map[string]bool{}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		must(t, err)
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil {
				if ino, ok := strings.CutPrefix(target, "socket:["); ok {
					own[strings.TrimSuffix(ino, "]")] = true
				}
			}
		}
		for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "packet", "netlink", "unix"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
			if errors.Is(err, fs.ErrNotExist) {
				continue // no such protocol in this kernel
			}
			must(t, err)
			for line := range bytes.Lines(b) {
				// A connected pair without a name leads to a process that waits for a sandbox, and
				// to nobody else.
				if f := strings.Fields(string(line)); table == "unix" && len(f) == 7 && f[5] == "03" {
					continue
				}
				for f := range strings.FieldsSeq(string(line)) {
					if own[f] && (table != "unix" || !bytes.Contains(line, []byte("/client.sock"))) {
						t.Errorf("the daemon has a socket in %s: %s", table, line)
					}
				}
			}
		}
	})
}
