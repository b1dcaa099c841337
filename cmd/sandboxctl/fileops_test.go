// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// A program that uses files in every way does the same in a volume as on the
// host, and leaves the same there.
func TestFileOperations(t *testing.T) {
	t.Parallel()
	requireHost(t)
	h := daemonHost(t)
	prog := filepath.Join(h.work, "rootfs", "bin", "fileops")
	build := exec.Command("go", "build", "-trimpath", "-o", prog, "./testdata/fileops")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	onHost := filepath.Join(h.work, "host")
	must(t, os.Mkdir(onHost, 0o755))
	want, err := exec.Command(prog, onHost).CombinedOutput()
	if err != nil {
		t.Fatalf("on the host: %v\n%s", err, want)
	}
	left := treeOf(t, onHost)
	for _, access := range []string{desired.FileAccessProxy, desired.FileAccessDirect} {
		t.Run(access, func(t *testing.T) {
			dir := filepath.Join(h.work, access)
			must(t, os.Mkdir(dir, 0o755))
			h.drop(access, fmt.Sprintf("  command: [/bin/busybox, sleep, \"1000\"]\n  fileAccess: %s\n  volumes: [{name: v, mountPath: /mnt, hostPath: %s}]\n", access, dir))
			h.until(access, func() bool {
				rec, _, _ := h.store.Get(access)
				return rec != nil && rec.Phase == actual.PhaseRunning
			})
			got, err := h.command("exec", access, "--", "/bin/fileops", "/mnt").CombinedOutput()
			if err != nil {
				t.Errorf("in the sandbox: %v", err)
			}
			compareLines(t, "printed", string(want), string(got))
			compareLines(t, "left", left, treeOf(t, dir))
		})
	}
}

func compareLines(t *testing.T, what, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Errorf("%s, line %d:\n on the host    %s\n in the sandbox %s", what, i+1, a, b)
		}
	}
}

// treeOf describes all files of a directory, without what differs from one run to
// the next.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		s := st.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%q %v %d:%d", rel, st.Mode(), s.Uid, s.Gid)
		switch {
		case st.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x of %d names, sparse %v", st.Size(), sha256.Sum256(b), s.Nlink, s.Blocks*512 < st.Size())
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" to %.40s, %d", to, len(to))
		case st.Mode()&fs.ModeDevice != 0:
			line += fmt.Sprintf(" device %d", s.Rdev)
		}
		// Times that the program set.
		if st.ModTime().Year() < 2005 {
			line += fmt.Sprintf(" of %d", st.ModTime().UnixNano())
		}
		buf := make([]byte, 4096)
		if n, err := unix.Lgetxattr(p, "user.a", buf); err == nil {
			line += " user.a=" + string(buf[:n])
		}
		if n, err := unix.Llistxattr(p, buf); err == nil && n > 0 {
			line += fmt.Sprintf(" %d attributes", strings.Count(string(buf[:n]), "user."))
		}
		fmt.Fprintln(&out, line)
		return nil
	}))
	return out.String()
}
