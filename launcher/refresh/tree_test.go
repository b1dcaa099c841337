// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

// standIn is the argument with which this program is what a gofer is to these tests: a process
// in a jail whose mount 1 is a read-only tmpfs with files, in namespaces of its own.
const standIn = "stand-in-of-a-gofer"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == standIn {
		if err := beGofer(os.Args[2:]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beGofer makes the jail, with a file for each NAME=CONTENT, and does what lines on standard
// input say until there are no more.
func beGofer(files []string) error {
	// As a gofer does: the one directory that is on every host.
	const stage = "/proc"
	top := stage + gofer.MountPoint(1)
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
		unix.Mount("jail", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"),
		os.Mkdir(stage+gofer.MountPoint(0), 0o755), os.Mkdir(top, 0o755),
		unix.Mount("volume", top, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"),
	)
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		err = errors.Join(err, os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755), os.WriteFile(filepath.Join(top, name), []byte(content), 0o444))
	}
	err = errors.Join(err,
		unix.Mount("", top, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""),
		os.Chdir(stage), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/"))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	var open *os.File
	for lines.Scan() {
		what, name, _ := strings.Cut(lines.Text(), " ")
		path := filepath.Join(gofer.MountPoint(1), name)
		switch what {
		case "list":
			if err := list(path); err != nil {
				return err
			}
		case "open":
			if open, err = os.Open(path); err != nil {
				return err
			}
		case "read":
			b, err := io.ReadAll(io.NewSectionReader(open, 0, 1<<20))
			fmt.Printf("%s %v\n", b, err)
		case "write":
			fmt.Println(os.WriteFile(path, nil, 0o600))
		}
		fmt.Println(".")
	}
	return nil
}

func list(top string) error {
	return filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil || p == top {
			return err
		}
		content := ""
		if !e.IsDir() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = fmt.Sprintf(" %q", b)
		}
		fmt.Printf("%s %o %d:%d%s\n", strings.TrimPrefix(p, top+"/"), st.Mode&^unix.S_IFMT, st.Uid, st.Gid, content)
		return nil
	})
}

// fakeGofer is such a process.
type fakeGofer struct {
	t   *testing.T
	id  process.Identity
	in  io.WriteCloser
	out *bufio.Scanner
}

func startGofer(t *testing.T, maps *idmap.Maps, files ...string) *fakeGofer {
	t.Helper()
	hosttest.NeedsRoot(t, "to make namespaces and to enter them")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{standIn}, files...)...)
	ids := func(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
		if maps == nil {
			return []syscall.SysProcIDMap{{Size: 1 << 20}} // a gofer has a user namespace all the same
		}
		out := []syscall.SysProcIDMap{}
		for _, r := range m {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(r.ContainerID), HostID: int(r.HostID), Size: int(r.Size)})
		}
		return out
	}
	var of idmap.Maps
	if maps != nil {
		of = *maps
	}
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUSER, PidFD: &pidfd, UidMappings: ids(of.UIDs), GidMappings: ids(of.GIDs), GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	g := &fakeGofer{t: t, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("the stand-in of a gofer: %v", err)
		}
		unix.Close(pidfd)
	})
	if g.out.Scan(); g.out.Text() != "ready" {
		t.Fatalf("the stand-in of a gofer says %q", g.out.Text())
	}
	g.id, err = process.Identify(pidfd, cmd.Process.Pid)
	must(t, err)
	return g
}

// asks has it do something, and returns its answer.
func (g *fakeGofer) asks(line string) string {
	g.t.Helper()
	_, err := fmt.Fprintln(g.in, line)
	must(g.t, err)
	var out []string
	for g.out.Scan() {
		if g.out.Text() == "." {
			return strings.Join(out, "\n")
		}
		out = append(out, g.out.Text())
	}
	g.t.Fatalf("no answer to %q but %q", line, out)
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func file(name, content string, mode uint32) setup.MemoryFile {
	return setup.MemoryFile{Name: name, Mode: mode, Data: []byte(content)}
}

var shifted = &idmap.Maps{
	UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}},
	GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}},
}

// A volume gets the files it is to have, and no others, as they are at a start; what gave them
// to it stays read-only for everybody else. A second time changes nothing.
func TestReplace(t *testing.T) {
	t.Parallel()
	owned := &desired.Ownership{UID: new(uint32(999)), GID: new(uint32(50))}
	for name, maps := range map[string]*idmap.Maps{"same ids": nil, "other ids": shifted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGofer(t, maps, "same=same", "new=old", "gone=x", "d/e/f=x", "d/keep=x", "dd=was a file", ".sandboxctl\x1fnew=left by a crash")
			g.asks("open new")
			tr := tree{name: "v", mount: 1, owner: owned, files: []setup.MemoryFile{
				file("same", "same", 0o444), file("new", "new content", 0o400), file("d/keep", "kept", 0o444), file("deep/er/one", "", 0o440), file("dd2", strings.Repeat("x", 5000), 0o644),
			}}
			want := strings.Join([]string{
				"d 755 0:0", `d/keep 444 999:50 "kept"`, fmt.Sprintf("dd2 644 999:50 %q", strings.Repeat("x", 5000)), "deep 755 0:0", "deep/er 755 0:0", `deep/er/one 440 999:50 ""`,
				`new 400 999:50 "new content"`, `same 444 0:0 "same"`,
			}, "\n")
			for range 2 {
				must(t, write(g.id, maps, []tree{tr}))
				if got := g.asks("list"); got != want {
					t.Errorf("got\n%s\nexpected\n%s", got, want)
				}
			}
			if got := g.asks("read"); got != "old <nil>" {
				t.Errorf("who had it open reads %q", got)
			}
			if got := g.asks("write new"); !strings.Contains(got, "read-only file system") {
				t.Errorf("it can be written to: %s", got)
			}
			must(t, write(g.id, maps, []tree{{name: "v", mount: 1}}))
			if got := g.asks("list"); got != "" {
				t.Errorf("nothing is to be there, there is\n%s", got)
			}
		})
	}
}

// Not in parallel: it counts descriptors.
func TestNothingIsLeftOpen(t *testing.T) {
	g := startGofer(t, nil, "a=x", "d/gone=x")
	left := func() string {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return strconv.Itoa(len(list))
	}
	before := left()
	must(t, write(g.id, nil, []tree{{name: "v", mount: 1, files: []setup.MemoryFile{file("a", "y", 0o444), file("e/f", "y", 0o444)}}}))
	must(t, write(g.id, nil, []tree{{name: "v", mount: 1, subPath: "a", file: true, files: []setup.MemoryFile{file("a", "z", 0o444)}}}))
	if err := write(g.id, nil, []tree{{name: "v", mount: 1, files: []setup.MemoryFile{file("a/b", "y", 0o444)}}}); err == nil {
		t.Error("a file was made below a file")
	}
	if after := left(); after != before {
		t.Errorf("%s descriptors before, %s after", before, after)
	}
}

// What is mounted is the directory subPath leads to: it stays when nothing is in it, or the
// gofer would serve one that nobody sees.
func TestReplaceBelow(t *testing.T) {
	t.Parallel()
	g := startGofer(t, nil, "d/e/a=x")
	must(t, write(g.id, nil, []tree{{name: "v", mount: 1, subPath: "d/e"}}))
	if got, want := g.asks("list"), "d 755 0:0\nd/e 755 0:0"; got != want {
		t.Errorf("got\n%s\nexpected\n%s", got, want)
	}
}

// A single file keeps its inode: the one that is mounted.
func TestOverwrite(t *testing.T) {
	t.Parallel()
	for name, maps := range map[string]*idmap.Maps{"same ids": nil, "other ids": shifted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGofer(t, maps, "a=first content")
			g.asks("open a")
			for _, content := range []string{"second", "", "a third one, which is longer", "a third one, which is longer"} {
				must(t, write(g.id, maps, []tree{{name: "v", mount: 1, subPath: "a", file: true, files: []setup.MemoryFile{file("a", content, 0o444)}}}))
				if got, want := g.asks("read"), content+" <nil>"; got != want {
					t.Errorf("it reads %q, expected %q", got, want)
				}
			}
		})
	}
}

// Nothing is written where something else is than a tmpfs of a living gofer, and a guest that
// closes no file is refused more of them.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	g := startGofer(t, nil, "a=x")
	for name, c := range map[string]struct {
		id   process.Identity
		tree tree
		want string
	}{
		"no such mount":     {g.id, tree{name: "v", mount: 7}, "volume v: open: no such file or directory"},
		"a directory":       {g.id, tree{name: "v", mount: 0}, "volume v: expected a mount"},
		"another process":   {process.Identity{PID: g.id.PID, Inode: g.id.Inode + 1, StartTime: g.id.StartTime + 1, BootID: g.id.BootID, PIDNamespace: g.id.PIDNamespace}, tree{name: "v", mount: 1}, "open its gofer (pid "},
		"a missing file":    {g.id, tree{name: "v", mount: 1, subPath: "b", file: true, files: []setup.MemoryFile{file("b", "x", 0o444)}}, "volume v: open b: no such file or directory"},
		"a file as a child": {g.id, tree{name: "v", mount: 1, files: []setup.MemoryFile{file("a/b", "x", 0o444)}}, "not a directory"},
	} {
		if err := write(c.id, nil, []tree{c.tree}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
	if got := g.asks("list"); got != `a 444 0:0 "x"` {
		t.Errorf("after failures: %s", got)
	}
}

func TestOpenVersionsAreBounded(t *testing.T) {
	t.Parallel()
	g := startGofer(t, nil)
	content := func(i int) []setup.MemoryFile {
		var out []setup.MemoryFile
		for f := range 4 {
			out = append(out, file(strconv.Itoa(f), strings.Repeat(strconv.Itoa(i%10), desired.MaxFileSize), 0o444))
		}
		return out
	}
	var err error
	n := 0
	for ; n < 20 && err == nil; n++ {
		if err = write(g.id, nil, []tree{{name: "v", mount: 1, files: content(n)}}); err == nil {
			for f := range 4 {
				g.asks(fmt.Sprintf("open %d", f)) // and never closed: its variable is another one then
			}
		}
	}
	if err == nil || !strings.Contains(err.Error(), "of earlier versions of its files open") || n < 3 {
		t.Errorf("after %d versions: %v", n, err)
	}
}

// A panic ends the operation, and no thread with another root is left.
func TestApart(t *testing.T) {
	t.Parallel()
	if err := apart(func() error { panic("mistake") }); err == nil || !strings.Contains(err.Error(), "panic: mistake") {
		t.Errorf("%v", err)
	}
	for range 50 {
		err := apart(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("it is the main thread")
			}
			return unix.Unshare(unix.CLONE_FS)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
