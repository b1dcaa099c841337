// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/runsc/fsgofer/filter"

	"sandboxctl.dev/gofer/precompiled"
)

// The programs are what gVisor would compile for the gofer, instruction by
// instruction: generate.go compares each, and writes what is committed. It is built
// without the race detector, which has rules of its own.
func TestPrograms(t *testing.T) {
	t.Parallel()
	generate := filepath.Join(t.TempDir(), "generate")
	build := exec.Command("go", "build", "-o", generate, "generate.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(generate)
	cmd.Stderr = os.Stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, programs) {
		t.Error("programs.json is not what this gVisor compiles; run `go generate ./gofer/server/filters` and commit it")
	}
	if n := bytes.Count(got, []byte("\n")); n != 2 {
		t.Errorf("%d programs", n)
	}
}

// Every kind of gofer has its program, under the name by which gVisor looks for it.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, directFS := range []bool{false, true} {
		opt := filter.Options{DirectFS: directFS, LisafsNeeded: true}
		p, err := precompiled.Find(programs, kind(opt))
		// With the race detector gVisor adds to its rules, and looks for another one.
		if key := strings.Replace(opt.ConfigKey(), "Instrumentation=true", "Instrumentation=false", 1); err != nil || p.Name != key {
			t.Errorf("%s: %s, %v", key, p.Name, err)
		}
	}
}

// gVisor gets the program in process 1, for which it was compiled, and in no other.
func TestUse(t *testing.T) {
	t.Parallel()
	err := Use(filter.Options{LisafsNeeded: true})
	if n := len(filter.ListPrecompiled()); os.Getpid() == 1 && (err != nil || n != 1) || os.Getpid() != 1 && (err == nil || n != 0) {
		t.Fatalf("process %d: %d programs, %v", os.Getpid(), n, err)
	}
	if os.Getpid() == 1 {
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUse$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
