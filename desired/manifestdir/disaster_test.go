// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired"
)

// A disaster is something that happens to a directory of manifests whose
// sandboxes a, b and c should run all the while. The directory is watched as the
// daemon watches it, and every snapshot is judged: none may take one of them for
// gone, or believe half a file. When it is over, the directory is what it says,
// without anybody's help.
type disaster struct {
	name string
	// do makes the disaster, and ends it.
	do func(d *scene)
	// poll is how often it is looked whether the directory is the same one, for
	// what the kernel tells nobody of; otherwise its notifications have to do.
	poll time.Duration
	// resync is how often it is looked without a reason, for what nothing tells of.
	resync time.Duration
	// tool is the program that it takes.
	tool string
	// root says that it takes root.
	root bool
}

// keep are the sandboxes that should run, and where their manifests are.
var keep = map[string]string{"a": "a.yaml", "b": "b.yaml", "c": "sub/c.yaml"}

// scene is a disaster in progress.
type scene struct {
	t   *testing.T
	top string // parent of the parent of the directory, free to use
	m   string // the directory
	dir *Dir

	mu    sync.Mutex
	last  *desired.Snapshot
	seen  int // snapshots that were judged
	fresh chan struct{}
}

// command describes a manifest: the version of it is what it runs.
func manifestOf(name, version string) string {
	return strings.Replace(named(name), "[sh]", "["+version+"]", 1)
}

// versions are what a whole manifest may say.
var versions = map[string]bool{"sh": true, "edited": true}

// run makes the disaster once. With hammer it is looked all the time, as a busy
// daemon does, and not only when there is a reason.
func (x *disaster) run(t *testing.T, hammer bool) {
	if x.root {
		hosttest.NeedsRoot(t, "it takes root")
	}
	if x.tool != "" {
		needTool(t, x.tool)
	}
	top := t.TempDir()
	d := &scene{t: t, top: top, m: filepath.Join(top, "parent", "m"), fresh: make(chan struct{}, 1)}
	t.Cleanup(func() {
		// What one that failed has left mounted, in this namespace.
		for range 4 {
			_ = unix.Unmount(d.m, unix.MNT_DETACH)
			_ = unix.Unmount(filepath.Dir(d.m), unix.MNT_DETACH)
		}
	})
	for name := range keep {
		d.write(keep[name], manifestOf(name, "sh"))
	}
	poll := x.poll
	if poll == 0 {
		poll = time.Hour
	}
	// An absence counts after a time that no tool takes to put a file back, not on
	// a machine that is busy either; it is waited for in none of these.
	d.dir = New(Options{Path: d.m, Settle: 5 * time.Second, PollEvery: poll, Resync: x.resync, BootID: "boot", Once: true})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.dir.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	wg.Go(func() { d.look(ctx, hammer, x.resync) })
	defer wg.Wait()
	defer cancel()
	d.whole("sh", "sh", "sh")
	x.do(d)
}

// look is the loop of the daemon.
func (d *scene) look(ctx context.Context, hammer bool, resync time.Duration) {
	never := make(chan time.Time)
	var tick <-chan time.Time = never
	if hammer {
		resync = time.Millisecond
	}
	if resync > 0 {
		t := time.NewTicker(resync)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.dir.Changes():
		case <-tick:
		}
		s, err := d.dir.Load(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.t.Errorf("load: %v", err)
			return
		}
		d.judge(s)
	}
}

func (d *scene) judge(s *desired.Snapshot) {
	for name := range keep {
		switch e := s.Lookup(name); {
		case s.Removed(name, keep[name]):
			d.t.Errorf("%s would be stopped: %d entries, %d problems", name, len(s.Entries), len(s.Problems))
		case e != nil && !versions[e.Sandbox.Spec.Command[0]]:
			d.t.Errorf("%s would run %q", name, e.Sandbox.Spec.Command)
		}
	}
	d.mu.Lock()
	d.last = s
	d.seen++
	d.mu.Unlock()
	select {
	case d.fresh <- struct{}{}:
	default:
	}
}

// until waits for a snapshot, that comes of itself.
func (d *scene) until(what string, ok func(s *desired.Snapshot) bool) {
	d.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		d.mu.Lock()
		s := d.last
		d.mu.Unlock()
		if s != nil && ok(s) {
			return
		}
		select {
		case <-d.fresh:
		case <-deadline:
			d.t.Fatalf("%s: not seen within a minute; the last: %q complete %v %s %s", what, names(s), s.Complete, s.Reason, s.Message)
		}
	}
}

// noticed waits until the directory is said to be incomplete for a reason.
func (d *scene) noticed(reason string) {
	d.t.Helper()
	d.until(reason, func(s *desired.Snapshot) bool { return s.Reason == reason })
}

// whole waits until the directory is complete and says of a, b and c what is
// given.
func (d *scene) whole(a, b, c string) {
	d.t.Helper()
	d.until("whole", func(s *desired.Snapshot) bool {
		if !s.Complete {
			return false
		}
		for name, v := range map[string]string{"a": a, "b": b, "c": c} {
			if e := s.Lookup(name); e == nil || e.Sandbox.Spec.Command[0] != v {
				return false
			}
		}
		return true
	})
}

func (d *scene) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// at is a path in the directory.
func (d *scene) at(name string) string { return filepath.Join(d.m, name) }

// write puts a file into the directory, whole.
func (d *scene) write(name, text string) {
	d.t.Helper()
	d.writeTo(d.at(name), text)
}

func (d *scene) writeTo(p, text string) {
	d.t.Helper()
	d.must(os.MkdirAll(filepath.Dir(p), 0o755))
	tmp := filepath.Join(filepath.Dir(p), "."+filepath.Base(p)+".tmp")
	d.must(errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, p)))
}

// fill makes a directory with the manifests.
func (d *scene) fill(dir, version string) {
	d.t.Helper()
	for name, file := range keep {
		d.writeTo(filepath.Join(dir, file), manifestOf(name, version))
	}
}

// problem waits until a file is said to be wrong.
func (d *scene) problem(text string) {
	d.t.Helper()
	d.until("a problem", func(s *desired.Snapshot) bool {
		for _, p := range s.Problems {
			if strings.Contains(p.Error(), text) {
				return true
			}
		}
		return false
	})
}

// tool runs a program in the directory.
func (d *scene) tool(name string, args ...string) {
	d.t.Helper()
	if out, err := d.try(name, args...); err != nil {
		d.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (d *scene) try(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	return d.command(ctx, name, args...).CombinedOutput()
}

func (d *scene) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program(name), args...)
	cmd.Dir = d.m
	cmd.Env = append(os.Environ(), "HOME="+d.top, "TERM=xterm", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	return cmd
}

// program is what a tool is called here: Debian has a small vim under another
// name.
func program(name string) string {
	if _, err := exec.LookPath(name); err != nil && name == "vim" {
		return "vim.tiny"
	}
	return name
}

// needTool skips a test without a program, or fails it where all are required.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(program(name)); err == nil {
		return
	}
	hosttest.Lacks(t, "%s is not installed; `make setup` installs it", name)
}

// inChild says that this process is the one made by child.
const inChild = "SANDBOXCTL_TEST_CHILD"

// child runs a test again in a process of its own, in namespaces of its own, so
// that mounts and limits are nobody else's and gone with it, also when it fails.
// It returns true in that process.
func child(t *testing.T, flags uintptr) bool {
	t.Helper()
	if os.Getenv(inChild) == t.Name() {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=4m", "-test.parallel=16"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inChild+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = flags &^ unix.CLONE_NEWUSER
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		gid := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		cmd.SysProcAttr.Unshareflags = 0
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = flags, id, gid
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "no tests to run") {
		t.Errorf("it did not run:\n%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "--- SKIP") || strings.Contains(line, "scenarios") {
			t.Log(strings.TrimSpace(line))
		}
	}
	return false
}

// TestSourceDisasters: each is made twice, and by itself.
func TestSourceDisasters(t *testing.T) {
	if os.Getenv(inChild) == "" {
		t.Parallel()
	}
	if !child(t, unix.CLONE_NEWNS) {
		return
	}
	all := slices.Concat(disasters, toolDisasters, belowDisasters)
	once := map[string]bool{}
	for i := range all {
		x := &all[i]
		if once[x.name] {
			t.Errorf("%s is there twice", x.name)
		}
		once[x.name] = true
		for _, hammer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/hammer=%v", x.name, hammer), func(t *testing.T) {
				t.Parallel()
				x.run(t, hammer)
			})
		}
	}
	t.Logf("%d scenarios, each twice", len(all))
}

// poll of what the kernel tells nobody of.
const often = 50 * time.Millisecond

var disasters = []disaster{
	{name: "directory removed and made anew", do: func(d *scene) {
		d.must(os.RemoveAll(d.m))
		d.noticed(desired.ReasonDirectoryMissing)
		d.must(os.Mkdir(d.m, 0o755))
		d.noticed(desired.ReasonDirectoryReplaced)
		d.fill(d.m, "edited")
		d.whole("edited", "edited", "edited")
	}},
	{name: "directory renamed away and back", do: func(d *scene) {
		d.must(os.Rename(d.m, d.m+"2"))
		d.noticed(desired.ReasonDirectoryMissing)
		d.must(os.Rename(d.m+"2", d.m))
		d.whole("sh", "sh", "sh")
	}},
	{name: "directory renamed away and another in its place", do: func(d *scene) {
		d.must(errors.Join(os.Rename(d.m, d.m+"2"), os.Mkdir(d.m, 0o755)))
		d.noticed(desired.ReasonDirectoryReplaced)
		d.must(errors.Join(os.Remove(d.m), os.Rename(d.m+"2", d.m)))
		d.whole("sh", "sh", "sh")
	}},
	{name: "directory exchanged with a full one", do: func(d *scene) {
		d.fill(d.m+"2", "edited")
		for range 50 {
			d.must(unix.Renameat2(unix.AT_FDCWD, d.m, unix.AT_FDCWD, d.m+"2", unix.RENAME_EXCHANGE))
		}
		d.whole("sh", "sh", "sh")
		d.must(unix.Renameat2(unix.AT_FDCWD, d.m, unix.AT_FDCWD, d.m+"2", unix.RENAME_EXCHANGE))
		d.whole("edited", "edited", "edited")
	}},
	{name: "a file in the place of the directory", do: func(d *scene) {
		d.must(errors.Join(os.Rename(d.m, d.m+"2"), os.WriteFile(d.m, nil, 0o600)))
		d.noticed(desired.ReasonDirectoryUnreadable)
		d.must(errors.Join(os.Remove(d.m), os.Rename(d.m+"2", d.m)))
		d.whole("sh", "sh", "sh")
	}},
	{name: "a loop of links in the place of the directory", do: func(d *scene) {
		d.must(errors.Join(os.Rename(d.m, d.m+"2"), os.Symlink("m", d.m)))
		d.noticed(desired.ReasonDirectoryUnreadable)
		d.must(errors.Join(os.Remove(d.m), os.Rename(d.m+"2", d.m)))
		d.whole("sh", "sh", "sh")
	}},
	{name: "parent renamed away and back", do: func(d *scene) {
		p := filepath.Dir(d.m)
		d.must(os.Rename(p, p+"2"))
		d.noticed(desired.ReasonDirectoryMissing)
		d.must(os.Rename(p+"2", p))
		d.whole("sh", "sh", "sh")
	}, poll: often},
	{name: "parent removed and made anew", do: func(d *scene) {
		p := filepath.Dir(d.m)
		d.must(os.RemoveAll(p))
		d.noticed(desired.ReasonDirectoryMissing)
		d.fill(d.m, "edited")
		d.whole("edited", "edited", "edited")
	}, poll: often},
	{name: "tmpfs mounted over the directory", do: func(d *scene) {
		d.must(unix.Mount("tmpfs", d.m, "tmpfs", 0, "size=1m,mode=755"))
		d.noticed(desired.ReasonDirectoryReplaced)
		d.must(unix.Unmount(d.m, unix.MNT_DETACH))
		d.whole("sh", "sh", "sh")
	}, poll: often, root: true},
	{name: "volume unmounted and mounted again", do: func(d *scene) {
		v := filepath.Join(d.top, "volume")
		d.fill(v, "edited")
		d.must(unix.Mount(v, d.m, "", unix.MS_BIND, ""))
		d.whole("edited", "edited", "edited")
		d.must(os.RemoveAll(filepath.Join(d.top, "below")))
		// What is below it is empty, as mount points are.
		d.must(unix.Mount("tmpfs", filepath.Dir(d.m), "tmpfs", 0, "size=1m,mode=755"))
		d.must(os.Mkdir(d.m, 0o755))
		d.noticed(desired.ReasonDirectoryReplaced)
		d.must(unix.Mount(v, d.m, "", unix.MS_BIND, ""))
		d.whole("edited", "edited", "edited")
		d.must(unix.Unmount(d.m, unix.MNT_DETACH))
		d.noticed(desired.ReasonDirectoryReplaced)
		d.must(unix.Unmount(filepath.Dir(d.m), unix.MNT_DETACH))
		d.whole("edited", "edited", "edited")
		d.must(unix.Unmount(d.m, unix.MNT_DETACH))
		d.whole("sh", "sh", "sh")
	}, poll: often, root: true},
	{name: "directory bound to itself", do: func(d *scene) {
		for range 3 {
			d.must(unix.Mount(d.m, d.m, "", unix.MS_BIND, ""))
			d.write("a.yaml", manifestOf("a", "edited"))
			d.whole("edited", "sh", "sh")
			d.must(unix.Unmount(d.m, unix.MNT_DETACH)) // a look may be under way
			d.write("a.yaml", manifestOf("a", "sh"))
			d.whole("sh", "sh", "sh")
		}
	}, poll: often, root: true},
	{name: "remounted read-only", do: func(d *scene) {
		d.must(unix.Mount("tmpfs", d.m, "tmpfs", 0, "size=1m,mode=755"))
		d.fill(d.m, "sh")
		d.whole("sh", "sh", "sh")
		d.must(unix.Mount("", d.m, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if err := os.WriteFile(d.at("a.yaml"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			d.t.Errorf("it is not read-only: %v", err)
		}
		d.must(unix.Mount("", d.m, "", unix.MS_REMOUNT, ""))
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
		d.must(unix.Unmount(d.m, unix.MNT_DETACH))
		d.whole("sh", "sh", "sh")
	}, poll: often, root: true},
	{name: "link of Kubernetes swapped", do: func(d *scene) {
		d.fill(d.at("..1"), "sh")
		d.fill(d.at("..2"), "edited")
		d.must(os.Symlink("..1", d.at("..data")))
		for _, f := range keep {
			up := strings.Repeat("../", strings.Count(f, "/"))
			d.must(os.Symlink(up+"..data/"+f, d.at("link")))
			d.must(os.Rename(d.at("link"), d.at(f)))
		}
		d.whole("sh", "sh", "sh")
		for i := range 51 {
			d.must(errors.Join(os.Symlink([]string{"..2", "..1"}[i%2], d.at("..tmp")), os.Rename(d.at("..tmp"), d.at("..data"))))
		}
		d.whole("edited", "edited", "edited")
	}},
	{name: "link to the directory swapped", do: func(d *scene) {
		d.must(os.Rename(d.m, d.m+"1"))
		d.fill(d.m+"2", "edited")
		swap := func(to string) { d.must(errors.Join(os.Symlink(to, d.m+".tmp"), os.Rename(d.m+".tmp", d.m))) }
		swap("m2")
		d.whole("edited", "edited", "edited")
		swap("nowhere")
		d.noticed(desired.ReasonDirectoryMissing)
		swap("m1")
		d.whole("sh", "sh", "sh")
		for i := range 51 {
			swap([]string{"m2", "m1"}[i%2])
		}
		d.whole("edited", "edited", "edited")
	}},
	{name: "queue of notifications overflows", do: func(d *scene) {
		// The watcher stands still while more happens than the kernel keeps.
		d.dir.mu.Lock()
		for i := range 40000 {
			d.must(os.Chmod(d.at([]string{"a.yaml", "b.yaml"}[i%2]), []os.FileMode{0o644, 0o640}[i/2%2]))
		}
		d.must(os.Rename(d.at("sub"), d.at("sub2")))
		d.dir.mu.Unlock()
		d.write("sub2/c.yaml", manifestOf("c", "edited"))
		d.whole("sh", "sh", "edited")
	}},
	{name: "written byte by byte", do: func(d *scene) {
		f, err := os.OpenFile(d.at("a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
		d.must(err)
		for _, c := range []byte(manifestOf("a", "edited")) {
			_, err := f.Write([]byte{c})
			d.must(err)
			time.Sleep(time.Millisecond)
		}
		d.must(f.Close())
		d.whole("edited", "sh", "sh")
	}},
	{name: "appended to byte by byte, and closed each time", do: func(d *scene) {
		// No beginning of it is a manifest: of YAML some are, and nothing tells
		// such a half from a whole.
		text := `{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"a"},"spec":{"root":{"host":{}},"command":["edited"]}}`
		d.must(os.Truncate(d.at("a.yaml"), 0))
		for _, c := range []byte(text) {
			f, err := os.OpenFile(d.at("a.yaml"), os.O_WRONLY|os.O_APPEND, 0)
			d.must(err)
			_, err = f.Write([]byte{c})
			d.must(errors.Join(err, f.Close()))
			time.Sleep(time.Millisecond)
		}
		d.whole("edited", "sh", "sh")
	}},
	{name: "truncated, and written later", do: func(d *scene) {
		d.must(os.Truncate(d.at("a.yaml"), 0))
		d.problem("the file is empty")
		d.must(os.WriteFile(d.at("a.yaml"), []byte(manifestOf("a", "edited")), 0o644))
		d.whole("edited", "sh", "sh")
	}},
	{name: "filled with zeros, as after a power cut", do: func(d *scene) {
		d.must(os.WriteFile(d.at("a.yaml"), make([]byte, 4096), 0o644))
		d.problem("a.yaml")
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "grown to a terabyte", do: func(d *scene) {
		d.must(os.Truncate(d.at("a.yaml"), 1<<40))
		d.problem("a.yaml")
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "two define the same sandbox", do: func(d *scene) {
		d.write("again.yaml", manifestOf("a", "edited"))
		d.problem("again.yaml")
		d.must(os.Remove(d.at("a.yaml")))
		d.whole("edited", "sh", "sh")
	}},
	{name: "files renamed", do: func(d *scene) {
		for i := range 20 {
			d.must(os.Rename(d.at(fmt.Sprintf("%s.yaml", []string{"a", "z"}[i%2])), d.at(fmt.Sprintf("%s.yaml", []string{"z", "a"}[i%2]))))
		}
		d.must(os.Rename(d.at("sub/c.yaml"), d.at("c.yaml")))
		d.must(unix.Renameat2(unix.AT_FDCWD, d.at("c.yaml"), unix.AT_FDCWD, d.at("b.yaml"), unix.RENAME_EXCHANGE))
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "removed and put back, again and again", do: func(d *scene) {
		for range 200 {
			d.must(os.Remove(d.at("a.yaml")))
			d.write("a.yaml", manifestOf("a", "sh"))
		}
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "a fifo, a socket and a directory called like manifests", do: func(d *scene) {
		d.must(errors.Join(unix.Mkfifo(d.at("fifo.yaml"), 0o644), os.Mkdir(d.at("dir.yaml"), 0o755)))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		d.must(err)
		defer unix.Close(fd)
		parent, err := os.Open(d.m) // sun_path holds 108 bytes
		d.must(err)
		defer parent.Close()
		d.must(unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/socket.yaml", parent.Fd())}))
		d.problem("fifo.yaml")
		d.problem("socket.yaml")
		// The manifest itself becomes one.
		d.must(errors.Join(unix.Mkfifo(d.at("next"), 0o644), os.Rename(d.at("next"), d.at("a.yaml"))))
		d.problem("a.yaml: expected a regular file")
		d.must(errors.Join(os.Remove(d.at("fifo.yaml")), os.Remove(d.at("dir.yaml")), os.Remove(d.at("socket.yaml"))))
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "a device called like a manifest", do: func(d *scene) {
		d.must(unix.Mknod(d.at("zero.yaml"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		d.problem("zero.yaml")
		d.must(os.Remove(d.at("zero.yaml")))
		d.whole("sh", "sh", "sh")
	}, root: true},
	{name: "names that are not UTF-8, or of several lines", do: func(d *scene) {
		for _, bad := range []string{"\xff\xfe.yaml", "a\nb.yaml", "esc\x1b[31m.yaml", "tab\t.yaml"} {
			d.write(bad, named("bad"))
			d.problem("not printable UTF-8")
			d.must(os.Remove(d.at(bad)))
			d.whole("sh", "sh", "sh")
		}
	}},
	{name: "a link that leads out, and one to itself", do: func(d *scene) {
		d.writeTo(filepath.Join(d.top, "out.yaml"), manifestOf("a", "outside"))
		for _, to := range []string{filepath.Join(d.top, "out.yaml"), "a.yaml", "/dev/zero", "/proc/self/mem"} {
			d.must(errors.Join(os.Symlink(to, d.at("next")), os.Rename(d.at("next"), d.at("a.yaml"))))
			d.problem("a.yaml: the file can't be read")
			d.write("a.yaml", manifestOf("a", "sh"))
			d.whole("sh", "sh", "sh")
		}
	}},
	{name: "a manifest becomes a directory", do: func(d *scene) {
		d.must(errors.Join(os.Rename(d.at("a.yaml"), d.at("kept")), os.Mkdir(d.at("a.yaml"), 0o755)))
		d.problem("expected a file")
		d.must(errors.Join(os.Remove(d.at("a.yaml")), os.Rename(d.at("kept"), d.at("a.yaml"))))
		d.whole("sh", "sh", "sh")
	}},
	{name: "directories nested too deep", do: func(d *scene) {
		deep := d.at(strings.Repeat("d/", maxDirDeep+2))
		d.must(os.MkdirAll(deep, 0o755))
		d.problem("nested more than")
		d.must(os.RemoveAll(d.at("d")))
		d.whole("sh", "sh", "sh")
	}},
	{name: "a thousand files come and go", do: func(d *scene) {
		for i := range 1000 {
			d.must(os.WriteFile(d.at(fmt.Sprintf("f%d.yaml", i)), []byte(named(fmt.Sprintf("f%d", i))), 0o644))
		}
		d.until("all of them", func(s *desired.Snapshot) bool { return len(s.Entries) == 1003 && s.Complete })
		for i := range 1000 {
			d.must(os.Remove(d.at(fmt.Sprintf("f%d.yaml", i))))
		}
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "files touched like mad", do: func(d *scene) {
		for i := range 5000 {
			at := time.Unix(int64(i), 0)
			d.must(os.Chtimes(d.at("a.yaml"), at, at))
		}
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "times of files in the future, in the past and the same", do: func(d *scene) {
		for i, at := range []time.Time{time.Now().AddDate(50, 0, 0), time.Unix(0, 0), time.Unix(-1, 0), time.Now().AddDate(-50, 0, 0), time.Now()} {
			v := []string{"edited", "sh"}[i%2]
			p := d.at("a.yaml")
			d.write("a.yaml", manifestOf("a", v))
			d.must(os.Chtimes(p, at, at))
			d.whole(v, "sh", "sh")
			// Another text of the same length, in place, with the same times.
			other := strings.Replace(manifestOf("a", v), "name: a", "name: b", 1)
			if other == manifestOf("a", v) {
				d.t.Fatal("it is the same text")
			}
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			d.must(err)
			_, err = f.WriteString(other)
			d.must(errors.Join(err, f.Close(), os.Chtimes(p, at, at)))
			d.problem("b.yaml")
		}
		d.write("a.yaml", manifestOf("a", "edited"))
		d.whole("edited", "sh", "sh")
	}},
	{name: "silence, as on a network filesystem", do: func(d *scene) {
		// Written under another name: the watch of the directory is told nothing.
		other := filepath.Join(d.top, "other.yaml")
		d.must(os.Link(d.at("a.yaml"), other))
		d.must(os.WriteFile(other, []byte(manifestOf("a", "edited")), 0o644))
		d.whole("edited", "sh", "sh")
	}, resync: often},
}
