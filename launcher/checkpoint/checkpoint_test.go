// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/setup"
)

func sampleSetup() *setup.Setup {
	return &setup.Setup{
		Limits: cgroup.Limits{Memory: 1 << 30},

		Containers: []setup.Container{{Overlay: "memory", Spec: &specs.Spec{
			Root: &specs.Root{Path: "/"}, Hostname: "h",
			Process: &specs.Process{Args: []string{"a", "b"}, Cwd: "/", Env: []string{"A=b"}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}},
			Mounts:  setup.DefaultMounts(),
		}}},
	}
}

func sampleInfo(st *setup.Setup) *Info {
	return &Info{
		Version: layoutVersion, GVisor: "v1", Arch: runtime.GOARCH, CPUFeatures: []string{"sse", "avx"},
		Network: st.Network(), Overlay: st.App().Overlay, Mounts: st.MountConfs(), Spec: st.App().Spec,
	}
}

// Each thing that would make gVisor fail is found in advance, and what may
// change is not.
func TestObstacles(t *testing.T) {
	t.Parallel()
	features := []string{"sse", "avx", "avx2"}
	for want, change := range map[string]func(st *setup.Setup, c *Info){
		"": func(st *setup.Setup, _ *Info) {
			st.App().Spec.Hostname, st.App().Spec.Process.Env, st.Limits = "other", nil, cgroup.Limits{}
			st.App().Spec.Mounts[0], st.App().Spec.Mounts[1] = st.App().Spec.Mounts[1], st.App().Spec.Mounts[0]
			st.App().Spec.Linux = &specs.Linux{}
		},
		`version was "v0" and is "v1"`:           func(_ *setup.Setup, c *Info) { c.GVisor = "v0" },
		`architecture was "s390x"`:               func(_ *setup.Setup, c *Info) { c.Arch = "s390x" },
		"this processor lacks avx512f, sve":      func(_ *setup.Setup, c *Info) { c.CPUFeatures = append(c.CPUFeatures, "avx512f", "sve") },
		"checkpoint of version 9":                func(_ *setup.Setup, c *Info) { c.Version = 9 },
		"checkpoint of version 1":                func(_ *setup.Setup, c *Info) { c.Spec = nil },
		`the network was "none" and is "host"`:   func(st *setup.Setup, _ *Info) { st.HostNetwork = true },
		`the overlay was "memory" and is "none"`: func(st *setup.Setup, _ *Info) { st.App().Overlay = "none" },
		"overlaySize was 0 and is 7":             func(st *setup.Setup, _ *Info) { st.App().OverlaySize = 7 },
		"overlaySize was 7 and is 0":             func(_ *setup.Setup, c *Info) { c.OverlaySize = 7 },
		`the image was "sha256:aa" and is ""`:    func(_ *setup.Setup, c *Info) { c.Image = "sha256:aa" },
		`the image was "" and is "sha256:bb"`: func(st *setup.Setup, _ *Info) {
			st.App().Root.Image = &setup.ImageSource{Ref: "a", Digest: "sha256:bb"}
		},
		`process.args was ["a","b"] and is none`: func(st *setup.Setup, _ *Info) { st.App().Spec.Process.Args = nil },
		"process.capabilities":                   func(st *setup.Setup, _ *Info) { st.App().Spec.Process.Capabilities.Bounding = nil },
		"process.terminal":                       func(st *setup.Setup, _ *Info) { st.App().Spec.Process.Terminal = true },
		"process.user":                           func(st *setup.Setup, _ *Info) { st.App().Spec.Process.User.UID = 1 },
		"process.noNewPrivileges":                func(st *setup.Setup, _ *Info) { st.App().Spec.Process.NoNewPrivileges = true },
		"root.readonly":                          func(st *setup.Setup, _ *Info) { st.App().Spec.Root.Readonly = true },
		"linux.seccomp":                          func(st *setup.Setup, _ *Info) { st.App().Spec.Linux = &specs.Linux{Seccomp: &specs.LinuxSeccomp{}} },
		"linux.maskedPaths":                      func(st *setup.Setup, _ *Info) { st.App().Spec.Linux = &specs.Linux{MaskedPaths: []string{"/x"}} },
		"there was a mount at /sys":              func(st *setup.Setup, _ *Info) { st.App().Spec.Mounts = st.App().Spec.Mounts[:4] },
		"there was no mount at /x": func(st *setup.Setup, _ *Info) {
			st.App().Spec.Mounts = append(st.App().Spec.Mounts, specs.Mount{Destination: "/x"})
		},
		"process.args was [\"xx": func(st *setup.Setup, c *Info) {
			// They differ after what a message shows of them.
			st.App().Spec.Process.Args, c.Spec.Process.Args = []string{strings.Repeat("x", 300) + "1"}, []string{strings.Repeat("x", 300) + "2"}
		},
		"the mount at /proc was": func(st *setup.Setup, _ *Info) { st.App().Spec.Mounts[0].Options = nil },
	} {
		info, st := sampleInfo(sampleSetup()), sampleSetup()
		change(st, info)
		if got := strings.Join(info.obstacles(st, "v1", features), "; "); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("expected %q, got %q", want, got)
		}
	}
	// Of a snapshot no value is shown, which would be that of another sandbox.
	info, st := sampleInfo(sampleSetup()), sampleSetup()
	info.Checksum, info.GVisor, info.Network, info.OverlaySize, info.Image = "sha256:aa", "v0", "secret", 4711, "sha256:secret"
	p := info.Spec.Process
	p.Args, p.Cwd, p.User.Username, p.Rlimits = []string{"--password=secret"}, "/secret", "secret", []specs.POSIXRlimit{{Type: "secret", Hard: 4711}}
	info.Spec.Mounts[0].Options, info.Spec.Mounts[0].Source = []string{"secret"}, "/secret"
	info.Spec.Linux = &specs.Linux{MaskedPaths: []string{"/secret"}, ReadonlyPaths: []string{"/secret"}}
	switch got := strings.Join(info.obstacles(st, "v1", features), "; "); {
	case strings.Contains(got, "secret") || strings.Contains(got, "4711"):
		t.Errorf("values are shown: %q", got)
	case got != `the sentry's gVisor version was "v0" and is "v1"; the network differs; overlaySize differs; the image differs; the mount at /proc differs; `+
		"process.args differs; process.cwd differs; process.user differs; process.rlimits differs; linux.maskedPaths differs; linux.readonlyPaths differs":
		t.Errorf("%q", got)
	}
	// All at once.
	info, st = sampleInfo(sampleSetup()), sampleSetup()
	info.GVisor, st.App().Spec.Process.Cwd, st.App().Overlay = "v0", "/x", "none"
	if got := info.obstacles(st, "v1", features); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

// An environment that the application does not get is noticed, also one that nobody can compare.
func TestOtherEnvironment(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change func(st *setup.Setup, c *Info)
		want   bool
	}{
		"the same":             {func(*setup.Setup, *Info) {}, false},
		"none and an empty":    {func(st *setup.Setup, c *Info) { st.App().Spec.Process.Env, c.Spec.Process.Env = nil, []string{} }, false},
		"another value":        {func(st *setup.Setup, _ *Info) { st.App().Spec.Process.Env = []string{"A=c"} }, true},
		"one more":             {func(st *setup.Setup, _ *Info) { st.App().Spec.Process.Env = []string{"A=b", "B=c"} }, true},
		"none":                 {func(st *setup.Setup, _ *Info) { st.App().Spec.Process.Env = nil }, true},
		"private now":          {func(st *setup.Setup, _ *Info) { st.App().PrivateEnv = true }, true},
		"private in the state": {func(_ *setup.Setup, c *Info) { c.PrivateEnv = true }, true},
	} {
		info, st := sampleInfo(sampleSetup()), sampleSetup()
		c.change(st, info)
		if got := info.OtherEnvironment(st); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// The sizes that the state has are kept where the manifest says none, and are not more than
// the policy allows, also where their sum is too large for a number.
func TestDiskSizesKept(t *testing.T) {
	t.Parallel()
	const largest = math.MaxInt64
	for name, c := range map[string]struct {
		then, overlay, volume, most int64
		want                        string
	}{
		"as much as is allowed":     {then: 5, most: 10, want: "[{ 5 0} {d 5 0}]"},
		"more than is allowed":      {then: 6, most: 11, want: "more than the 11 that the host policy allows"},
		"with a size of its own":    {then: 6, overlay: 3, most: 9, want: "[{ 3 0} {d 6 0}]"},
		"more, with one of its own": {then: 6, volume: 4, most: 9, want: "more than the 9"},
		"beyond all numbers":        {then: largest, most: largest, want: "more than the"},
		"nothing is allowed":        {then: 1, most: 0, want: "more than the 0"},
		"an older checkpoint":       {most: 8, want: "[{ 4 0} {d 4 0}]"},
	} {
		st := sampleSetup()
		st.Policy, st.DefaultDisk = &hostpolicy.Policy{MaxDiskSize: new(scalar.Bytes(c.most))}, 4
		st.App().Overlay, st.App().OverlaySize = "disk", c.overlay
		st.App().Volumes = []setup.Source{{Disk: &setup.DiskSource{Volume: "d", Size: c.volume}}}
		info := sampleInfo(st)
		info.OverlaySize, info.DefaultDisk = c.overlay, c.then
		got := strings.Join(info.obstacles(st, "v1", info.CPUFeatures), "; ")
		if got == "" {
			info.KeepDiskSizes(st)
			got = fmt.Sprint(st.OnDisk())
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, expected %s", name, got, c.want)
		}
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
		"":                       func(dir string) { write(dir, infoFile, string(good)); write(dir, stateFile, "") },
		"that was not finished":  func(dir string) { write(dir, stateFile, "x") },
		"decode checkpoint.json": func(dir string) { write(dir, infoFile, "{"); write(dir, stateFile, "x") },
		"state.img":              func(dir string) { write(dir, infoFile, string(good)) },
		"symbolic link": func(dir string) {
			write(dir, infoFile, string(good))
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, stateFile)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		dir := t.TempDir()
		prepare(dir)
		img, err := Open(dir)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want == "":
			if err := img.Preflight(sampleSetup(), "v1"); err != nil && !errors.Is(err, ErrNotRestorable) {
				t.Error(err)
			}
			img.Close()
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("expected %q, got %v", want, err)
		}
	}
	if _, err := Open("relative"); err == nil {
		t.Error("a relative path is opened, relative to whatever the daemon's directory is")
	}
}
