// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/specfield"
)

// fieldSamples are values of fields that take only some.
var fieldSamples = map[string]any{
	"root.path": "other", "mounts.destination": "/other", "mounts.type": "proc", "process.cwd": "/other", "process.args": "other",
	"linux.namespaces.type": "pid", "linux.namespaces.path": "/proc/self/ns/net", "linux.rootfsPropagation": "private",
	"linux.maskedPaths": "/etc/secret", "linux.readonlyPaths": "/etc/secret", "linux.sysctl": "kernel.x",
	"process.capabilities.ambient": "CAP_KILL",
}

// fieldBelow are fields that ask for nothing while what is below them is empty.
var fieldBelow = map[string]string{"process.scheduler": "process.scheduler.policy", "linux.personality": "linux.personality.domain"}

// setField sets the field of a path in v: in the first element of a list, which is
// made if there is none.
func setField(v reflect.Value, path []string, sample reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		setField(v.Elem(), path, sample)
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		setField(v.Index(0), path, sample)
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		setField(e, path, sample)
		key := "x"
		if sample.IsValid() {
			key = sample.String()
		}
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(key), e)
	case reflect.Struct:
		if len(path) == 0 {
			return
		}
		for f, value := range v.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous {
				setField(value, path, sample)
			} else if name == path[0] {
				setField(value, path[1:], sample)
			}
		}
	case reflect.String:
		v.SetString("x")
		if sample.IsValid() {
			v.SetString(sample.String())
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(70000)
	case reflect.Uint16:
		v.SetUint(7)
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		v.SetUint(70000)
	}
}

func fieldsBase(t *testing.T) (*specs.Spec, string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"rootfs/etc", "other/etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "secret"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"a"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Permitted: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}},
		},
		Root:   &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{{Destination: "/m", Type: "tmpfs", Source: "tmpfs"}},
		Hooks:  &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}},
			Resources:  &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(1000)), Period: new(uint64(1000))}},
			Seccomp:    &specs.LinuxSeccomp{DefaultAction: specs.ActErrno},
		},
	}, dir
}

// Whatever the table of fields says is done: a field that is refused is an error
// that names it, one that is honoured changes the set-up, one that is ignored is
// accepted. No other field is.
func TestSpecFields(t *testing.T) {
	t.Parallel()
	build := map[specfield.Way]func(*specs.Spec, string) (*setup.Setup, error){
		specfield.Bundle: func(c *specs.Spec, dir string) (*setup.Setup, error) {
			st := &setup.Setup{Containers: []setup.Container{{Overlay: desired.OverlayMemory}}}
			if err := st.FromConfig(dir, c); err != nil {
				return nil, err
			}
			return st, ForStart(st, nil)
		},
		specfield.Runtime: FromContainer,
	}
	// These take effect elsewhere: annotations and the terminal in oci, the score in
	// createContainer, hooks in oci, and each has a test of its own.
	elsewhere := []string{"annotations", "process.oomScoreAdj", "process.consoleSize.height", "process.consoleSize.width"}
	for way, build := range build {
		for _, f := range specfield.Fields() {
			base, dir := fieldsBase(t)
			before, err := build(base, dir)
			if err != nil {
				t.Fatal(err)
			}
			cfg, _ := fieldsBase(t)
			path := f.Path
			if below := fieldBelow[path]; below != "" {
				path = below
			}
			setField(reflect.ValueOf(cfg), strings.Split(path, "."), reflect.ValueOf(fieldSamples[f.Path]))
			after, err := build(cfg, dir)
			name, _, _ := strings.Cut(f.Path, ".")
			switch f.Rules[way].Decision {
			case specfield.Refused:
				if err == nil || !strings.Contains(err.Error(), "not supported") || !strings.Contains(err.Error(), name) {
					t.Errorf("way %d: %s: %v, expected a refusal", way, f.Path, err)
				}
			case specfield.Ignored:
				if err != nil {
					t.Errorf("way %d: %s: %v, expected that it is ignored", way, f.Path, err)
				}
			case specfield.Honoured:
				if way == specfield.Runtime && (slices.Contains(elsewhere, f.Path) || name == "hooks" && !strings.Contains(f.Path, "startContainer")) {
					continue
				}
				// A value that makes no sense alone is an error that says so.
				if err == nil && reflect.DeepEqual(before, after) || err != nil && !strings.Contains(err.Error(), name) {
					t.Errorf("way %d: %s changes nothing, %v", way, f.Path, err)
				}
			default:
				t.Errorf("way %d: %s is not decided on", way, f.Path)
			}
		}
	}
}
