// SPDX-License-Identifier: Apache-2.0

package pause

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	ours "sandboxctl.dev/launcher/image/erofs"
	"sandboxctl.dev/launcher/proc/proctest"
)

// start runs the program on this host.
func start(t *testing.T, args ...string) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pause")
	if err := proctest.WriteProgram(file, Program(), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(file, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return cmd, ended
}

// It goes on whatever it is sent, but SIGKILL.
func TestPauses(t *testing.T) {
	t.Parallel()
	cmd, ended := start(t)
	time.Sleep(50 * time.Millisecond) // it has blocked them by then, or is ended by the first
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it has ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != unix.SIGKILL {
		t.Errorf("it ended by %v", ws)
	}
}

// With an argument it ends, well.
func TestEnds(t *testing.T) {
	t.Parallel()
	_, ended := start(t, "end")
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it has not ended")
	}
}

var update = flag.Bool("update", false, "write root.erofs")

// mountPoints are what gVisor mounts in every container.
var mountPoints = []string{"dev", "proc", "sys", "tmp"}

// The root is what our own writer makes of the program and the mount points.
func TestRoot(t *testing.T) {
	var f file
	w := ours.NewWriter(&f)
	if n := len(Program()); n != block {
		t.Fatalf("the program has %d bytes", n)
	}
	content, err := w.Append(bytes.NewReader(make([]byte, block)), block)
	if err != nil {
		t.Fatal(err)
	}
	root := &ours.Node{Mode: unix.S_IFDIR | 0o555, Children: map[string]ours.Entry{
		path[1:]: {Node: &ours.Node{Mode: unix.S_IFREG | 0o555, Content: content}},
	}}
	for _, name := range mountPoints {
		root.Children[name] = ours.Entry{Node: &ours.Node{Mode: unix.S_IFDIR | 0o555}}
	}
	if _, err := w.Finish(root, [16]byte{}); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("root.erofs", f.b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(f.b, empty) {
		t.Error("root.erofs is not what the writer makes: go test ./launcher/pause -update")
	}
}

// The image has the program, which nobody can write to, and mount points.
func TestImage(t *testing.T) {
	t.Parallel()
	f, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := fs.ReadFile(fsys, path[1:])
	if err != nil || !bytes.Equal(b, Program()) {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil || len(entries) != 1+len(mountPoints) {
		t.Errorf("%v: %v", entries, err)
	}
	if n := len(image()); n > 16<<10 {
		t.Errorf("it has %d bytes", n)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Error("it can be written to")
	}
}

// file is one in memory.
type file struct{ b []byte }

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.b = append(f.b, make([]byte, max(0, int(off)+len(b)-len(f.b)))...)
	return copy(f.b[off:], b), nil
}

func (f *file) Truncate(n int64) error {
	f.b = append(f.b, make([]byte, max(0, int(n)-len(f.b)))...)[:n]
	return nil
}

func (f *file) Punch(int64, int64) error { return nil }
