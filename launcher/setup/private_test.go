// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
)

// The sentry is told values that no file and no message has.
func TestPrivate(t *testing.T) {
	t.Parallel()
	sb := &desired.Sandbox{
		APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"},
		Spec: desired.Spec{
			Root: desired.Root{Host: &desired.HostRoot{}}, Command: []string{"app", "--password=$(PASSWORD)"},
			Env:     []desired.EnvVar{{Name: "URL", Value: "pg://$(PASSWORD)@db"}, {Name: "PLAIN", Value: "x"}},
			EnvFrom: []desired.EnvFrom{{File: "/srv/sandboxctl/a.env"}},
		},
	}
	desired.Default(sb)
	st, err := FromManifest(sb, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.UsePrivate(sb, nil); err != nil || st.App().PrivateEnv || st.Process() != st.App().Spec.Process {
		t.Error("something is private, of nothing")
	}
	const secret = "hunter2-äß\"'"
	if err := st.UsePrivate(sb, []envfile.Variable{{Name: "PASSWORD", Value: secret}, {Name: "PORT", Value: "80"}, {Name: "PART", Value: "hunter2"}}); err != nil {
		t.Fatal(err)
	}
	told := st.Process()
	if want := []string{"app", "--password=" + secret}; !slices.Equal(told.Args, want) {
		t.Errorf("%q", told.Args)
	}
	if want := []string{"PASSWORD=" + secret, "PORT=80", "PART=hunter2", "URL=pg://" + secret + "@db", "PLAIN=x", DefaultPath}; !slices.Equal(told.Env, want) {
		t.Errorf("%q", told.Env)
	}
	if n := st.PrivateVariables(); n != 3 {
		t.Errorf("the first %d are private", n)
	}
	b, err := Encode(testRecord(), st)
	if err != nil || strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), `"privateEnv":true`) {
		t.Errorf("%s %v", b, err)
	}
	st, err = Decode(testRecord(), b)
	if err != nil || !st.App().PrivateEnv || st.Process() != st.App().Spec.Process {
		t.Errorf("%+v %v", st, err)
	}
}

// Files of volumes in memory are given to the gofer and are not written down.
func TestUseFiles(t *testing.T) {
	t.Parallel()
	sb := &desired.Sandbox{
		APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"},
		Spec: desired.Spec{
			Root: desired.Root{Host: &desired.HostRoot{}}, Command: []string{"app"},
			Volumes: []desired.Volume{
				{Name: "tmp", MountPath: "/t", Tmpfs: &desired.Tmpfs{}},
				{Name: "conf", MountPath: "/c", Config: &desired.FileSet{Data: map[string]string{"a": "x"}}},
				{Name: "data", MountPath: "/d", HostPath: "/srv/d"},
				{Name: "keys", MountPath: "/k", Options: []string{"noexec"}, Secret: &desired.FileSet{Files: map[string]string{"k": "/srv/k"}}},
			},
		},
	}
	desired.Default(sb)
	if errs := desired.Validate(sb); len(errs) > 0 {
		t.Fatal(errs)
	}
	st, err := FromManifest(sb, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.UseFiles(map[string][]MemoryFile{"conf": {{Name: "a", Mode: 0o444, Data: []byte("x")}}, "keys": {{Name: "k", Mode: 0o400, Data: []byte("hunter2")}}})
	var got []string
	for _, v := range st.App().Volumes {
		text := v.InMemory + " " + v.Path
		for _, f := range v.Files {
			text += fmt.Sprintf(" %s %o %s", f.Name, f.Mode, f.Data)
		}
		got = append(got, fmt.Sprintf("%s %v %v", text, v.ReadOnly, v.Options.NoExec))
	}
	if want := []string{"conf  a 444 x true false", " /srv/d false false", "keys  k 400 hunter2 true true"}; !slices.Equal(got, want) {
		t.Errorf("%q, expected %q", got, want)
	}
	b, err := Encode(testRecord(), st)
	if err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("%s %v", b, err)
	}
	again, err := Decode(testRecord(), b)
	if err != nil || again.App().Volumes[2].InMemory != "keys" {
		t.Errorf("%+v %v", again, err)
	}
}

func TestConceal(t *testing.T) {
	t.Parallel()
	st := &Setup{Containers: []Container{{}}}
	plain := errors.New("hunter2 is not found")
	if st.Conceal(plain) != plain || st.Conceal(nil) != nil {
		t.Error("without private values an error is another one")
	}
	st.App().Private = &Private{Variables: []envfile.Variable{{Name: "A", Value: "hunter2"}, {Name: "ALL", Value: "hunter2345"}, {Name: "N", Value: "not"}}}
	for _, c := range []struct{ in, want string }{
		{"exec hunter2: not found", "exec $(A): not found"},
		{"hunter2345 hunter2", "$(ALL) $(A)"},
		{"no such file", "no such file"},
	} {
		err := st.Conceal(fmt.Errorf("%s: %w", c.in, fs.ErrNotExist))
		if want := c.want + ": " + fs.ErrNotExist.Error(); err.Error() != want || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v, expected %s", err, want)
		}
	}
	var pathErr *fs.PathError
	if err := st.Conceal(&fs.PathError{Op: "open", Path: "hunter2", Err: fs.ErrExist}); !errors.As(err, &pathErr) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// A single file that may be missing, and is, hides nothing of the root: neither its volume
// nor its mount is left, and those of others stay together.
func TestUseOneFile(t *testing.T) {
	t.Parallel()
	one := func(name, at, sub string) desired.Volume {
		return desired.Volume{Name: name, MountPath: at, SubPath: sub, Config: &desired.FileSet{Files: map[string]string{"a": "/srv/a", "d/b": "/srv/b"}, Optional: true}}
	}
	for name, c := range map[string]struct {
		files map[string][]MemoryFile
		want  string
	}{
		"all":     {map[string][]MemoryFile{"x": {{Name: "a"}}, "y": {{Name: "a"}}, "z": {{Name: "d/b"}}}, "/x=x file /h=/srv/h /y=y file /z=z directory"},
		"none":    {nil, "/h=/srv/h"},
		"the 1st": {map[string][]MemoryFile{"x": {{Name: "a"}}}, "/x=x file /h=/srv/h"},
		"the 2nd": {map[string][]MemoryFile{"y": {{Name: "a"}}}, "/h=/srv/h /y=y file"},
		"the 3rd": {map[string][]MemoryFile{"z": {{Name: "d/b"}}}, "/h=/srv/h /z=z directory"},
	} {
		sb := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"}, Spec: desired.Spec{
			Root: desired.Root{Host: &desired.HostRoot{}}, Command: []string{"app"},
			Volumes: []desired.Volume{one("x", "/x", "a"), {Name: "tmp", MountPath: "/t", Tmpfs: &desired.Tmpfs{}}, {Name: "h", MountPath: "/h", HostPath: "/srv/h"}, one("y", "/y", "a"), one("z", "/z", "d")},
		}}
		desired.Default(sb)
		if errs := desired.Validate(sb); len(errs) > 0 {
			t.Fatal(errs)
		}
		st, err := FromManifest(sb, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		st.UseFiles(c.files)
		var got []string
		for i := range st.App().Volumes {
			v := &st.App().Volumes[i]
			text := st.App().Spec.Mounts[st.App().bindAt(i)].Destination + "=" + v.InMemory + v.Path
			if v.IsFile() {
				text += " file"
			} else if v.InMemory != "" {
				text += " directory"
			}
			got = append(got, text)
		}
		if s := strings.Join(got, " "); s != c.want || st.App().bindAt(len(st.App().Volumes)) != -1 {
			t.Errorf("%s: %s, expected %s", name, s, c.want)
		}
	}
}

// Nobody on the host can own a file.
func TestOwnerInMemory(t *testing.T) {
	t.Parallel()
	for uid, good := range map[uint32]bool{0: true, 999: true, 1000: false} {
		ids := []desired.IDMapping{{ContainerID: 0, HostID: 100_000, Size: 1000}}
		sb := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"}, Spec: desired.Spec{
			Root: desired.Root{Host: &desired.HostRoot{}}, Command: []string{"app"}, IDMappings: &desired.IDMappings{UIDs: ids, GIDs: ids},
			Volumes: []desired.Volume{{Name: "x", MountPath: "/x", Ownership: &desired.Ownership{UID: &uid}, Config: &desired.FileSet{Data: map[string]string{"a": "x"}}}},
		}}
		desired.Default(sb)
		if _, err := FromManifest(sb, nil, nil, nil); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "spec.volumes[0].ownership: uid or gid is nobody on the host") {
			t.Errorf("%d: %v", uid, err)
		}
	}
}
