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
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
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
	if n := bytes.Count(got, []byte("\n")); n != 6 {
		t.Errorf("%d programs", n)
	}
}

// Every kind of sentry has a program of its own, whose variables gVisor knows.
func TestFind(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 8 {
		hostNetwork, rawSockets, directFS := i&1 != 0, i&2 != 0, i&4 != 0
		p, err := find(hostNetwork, rawSockets, directFS)
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

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "{", `{"code":"!"}`, `{"code":5}`, `{"vars":{"a":["x"]}}`} {
		if p, err := decode([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, p)
		}
	}
}

// Programs that are for process 1 are not used in another one.
func TestUse(t *testing.T) {
	t.Parallel()
	if err := Use(false, false, false); err == nil {
		t.Error("used")
	}
}
