// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/cgroup"
)

func sampleSetup() *setup {
	return &setup{
		overlay: "memory", limits: cgroup.Limits{Memory: 1 << 30},
		spec: &specs.Spec{
			Root: &specs.Root{Path: "/"}, Hostname: "h",
			Process: &specs.Process{Args: []string{"a", "b"}, Cwd: "/", Env: []string{"A=b"}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}},
			Mounts:  defaultMounts(),
		},
	}
}

func sampleInfo(st *setup) *CheckpointInfo {
	return &CheckpointInfo{
		Version: checkpointVersion, GVisor: "v1", Arch: runtime.GOARCH, CPUFeatures: []string{"sse", "avx"},
		Network: st.network(), Overlay: st.overlay, Mounts: st.mountConfs(), Spec: st.spec,
	}
}

// Each thing that would make gVisor fail is found in advance, and what may
// change is not.
func TestObstacles(t *testing.T) {
	t.Parallel()
	features := []string{"sse", "avx", "avx2"}
	for want, change := range map[string]func(st *setup, c *CheckpointInfo){
		"": func(st *setup, _ *CheckpointInfo) {
			st.spec.Hostname, st.spec.Process.Env, st.limits = "other", nil, cgroup.Limits{}
			st.spec.Mounts[0], st.spec.Mounts[1] = st.spec.Mounts[1], st.spec.Mounts[0]
			st.spec.Linux = &specs.Linux{}
		},
		`version was "v0" and is "v1"`:           func(_ *setup, c *CheckpointInfo) { c.GVisor = "v0" },
		`architecture was "s390x"`:               func(_ *setup, c *CheckpointInfo) { c.Arch = "s390x" },
		"this processor lacks avx512f, sve":      func(_ *setup, c *CheckpointInfo) { c.CPUFeatures = append(c.CPUFeatures, "avx512f", "sve") },
		"checkpoint of version 9":                func(_ *setup, c *CheckpointInfo) { c.Version = 9 },
		"checkpoint of version 1":                func(_ *setup, c *CheckpointInfo) { c.Spec = nil },
		`the network was "none" and is "host"`:   func(st *setup, _ *CheckpointInfo) { st.hostNetwork = true },
		`the overlay was "memory" and is "none"`: func(st *setup, _ *CheckpointInfo) { st.overlay = "none" },
		`process.args was ["a","b"] and is none`: func(st *setup, _ *CheckpointInfo) { st.spec.Process.Args = nil },
		"process.capabilities":                   func(st *setup, _ *CheckpointInfo) { st.spec.Process.Capabilities.Bounding = nil },
		"process.terminal":                       func(st *setup, _ *CheckpointInfo) { st.spec.Process.Terminal = true },
		"process.user":                           func(st *setup, _ *CheckpointInfo) { st.spec.Process.User.UID = 1 },
		"process.noNewPrivileges":                func(st *setup, _ *CheckpointInfo) { st.spec.Process.NoNewPrivileges = true },
		"root.readonly":                          func(st *setup, _ *CheckpointInfo) { st.spec.Root.Readonly = true },
		"linux.seccomp":                          func(st *setup, _ *CheckpointInfo) { st.spec.Linux = &specs.Linux{Seccomp: &specs.LinuxSeccomp{}} },
		"linux.maskedPaths":                      func(st *setup, _ *CheckpointInfo) { st.spec.Linux = &specs.Linux{MaskedPaths: []string{"/x"}} },
		"there was a mount at /sys":              func(st *setup, _ *CheckpointInfo) { st.spec.Mounts = st.spec.Mounts[:4] },
		"there was no mount at /x": func(st *setup, _ *CheckpointInfo) {
			st.spec.Mounts = append(st.spec.Mounts, specs.Mount{Destination: "/x"})
		},
		"the mount at /proc was": func(st *setup, _ *CheckpointInfo) { st.spec.Mounts[0].Options = nil },
	} {
		info, st := sampleInfo(sampleSetup()), sampleSetup()
		change(st, info)
		if got := strings.Join(info.obstacles(st, "v1", features), "; "); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("expected %q, got %q", want, got)
		}
	}
	// All at once.
	info, st := sampleInfo(sampleSetup()), sampleSetup()
	info.GVisor, st.spec.Process.Cwd, st.overlay = "v0", "/x", "none"
	if got := info.obstacles(st, "v1", features); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

func TestOpenCheckpoint(t *testing.T) {
	t.Parallel()
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := json.Marshal(sampleInfo(sampleSetup()))
	if err != nil {
		t.Fatal(err)
	}
	for want, prepare := range map[string]func(dir string){
		"":                       func(dir string) { write(dir, checkpointInfo, string(good)); write(dir, checkpointState, "") },
		"that was not finished":  func(dir string) { write(dir, checkpointState, "x") },
		"decode checkpoint.json": func(dir string) { write(dir, checkpointInfo, "{"); write(dir, checkpointState, "x") },
		"state.img":              func(dir string) { write(dir, checkpointInfo, string(good)) },
		"symbolic link": func(dir string) {
			write(dir, checkpointInfo, string(good))
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, checkpointState)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		dir := t.TempDir()
		prepare(dir)
		img, err := openCheckpoint(dir)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want == "":
			if err := img.preflight(sampleSetup(), "v1"); err != nil && !errors.Is(err, ErrNotRestorable) {
				t.Error(err)
			}
			img.close()
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("expected %q, got %v", want, err)
		}
	}
	if _, err := openCheckpoint("relative"); err == nil {
		t.Error("a relative path is opened, relative to whatever the daemon's directory is")
	}
}
