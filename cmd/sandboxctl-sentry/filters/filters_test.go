// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/boot/filter"

	"sandboxctl.dev/gofer/precompiled"
)

// The programs are what gVisor would compile for the sentry, instruction by
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
		t.Error("programs.json is not what this gVisor compiles; run `go generate ./cmd/sandboxctl-sentry/filters` and commit it")
	}
	if n := bytes.Count(got, []byte("\n")); n != 7 {
		t.Errorf("%d programs", n)
	}
}

// Every kind of sentry has a program of its own, whose variables gVisor knows.
func TestFind(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 8 {
		hostNetwork, rawSockets, directFS := i&1 != 0, i&2 != 0, i&4 != 0
		p, err := precompiled.Find(programs, kind(hostNetwork, rawSockets, directFS))
		if err != nil {
			t.Fatal(err)
		}
		seen[p.Name] = true
		for _, want := range []string{
			fmt.Sprintf("HostNetwork=%t", hostNetwork), fmt.Sprintf("HostNetworkRawSockets=%t", hostNetwork && rawSockets), fmt.Sprintf("HostFilesystem=%t", directFS),
			"NVProxy=false", "TPUProxy=false", "RDMAProxy=false", "ProfileEnable=false", "Instrumentation=false",
		} {
			if !slices.Contains(strings.Fields(p.Name), want) {
				t.Errorf("%s is not in %s", want, p.Name)
			}
		}
		values := precompiledseccomp.Values{}
		for name := range p.VarOffsets {
			values[name] = 77
		}
		if instructions, err := p.RenderInstructions(values); err != nil || len(instructions) < 400 || len(values) != 5 {
			t.Errorf("%s: %d instructions, variables %v: %v", p.Name, len(instructions), p.VarOffsets, err)
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d programs", len(seen))
	}
}

// gVisor gets the program in process 1, for which it was compiled, and in no other.
func TestUse(t *testing.T) {
	t.Parallel()
	err := Use(false, false, false)
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
