// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// fixture is a host with a directory that may be shared and a state directory that
// may not.
type fixture struct {
	t      *testing.T
	dir    string
	policy *hostpolicy.Policy
	host   *hostfs.Host
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	top := t.TempDir()
	f := &fixture{t: t, dir: filepath.Join(top, "shared")}
	state := filepath.Join(top, "state")
	for _, d := range []string{f.dir, state} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var problems []desired.Problem
	f.policy, problems = hostpolicy.Decode("policy.yaml", fmt.Appendf(nil,
		"apiVersion: %s\nkind: HostPolicy\nhostPaths: [{path: %q, access: readOnly}, {path: /proc, access: readOnly}]\n", desired.APIVersion, f.dir))
	if f.policy == nil {
		t.Fatal(problems)
	}
	dir, err := os.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	// It is not closed here: a read that was given up may still use it. The runtime closes
	// it after the last one.
	f.host = &hostfs.Host{State: dir, StatePath: state}
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) read(from ...desired.EnvFrom) (*Read, error) {
	for i := range from {
		if !filepath.IsAbs(from[i].File) {
			from[i].File = f.path(from[i].File)
		}
	}
	return ForStart(f.t.Context(), &desired.Sandbox{Spec: desired.Spec{EnvFrom: from}}, Documents{}, f.policy, f.host)
}

func TestForStart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("a", "A=1\nB='2 3'\n")
	f.write("b", "B=\"x\"\nC=4\n")
	got, err := f.read(desired.EnvFrom{File: "a"}, desired.EnvFrom{File: "b", Format: desired.FormatRaw}, desired.EnvFrom{File: "a", Prefix: "P_"},
		desired.EnvFrom{File: "none", Optional: true}, desired.EnvFrom{File: "no/dir", Optional: true})
	want := []envfile.Variable{{Name: "A", Value: "1"}, {Name: "B", Value: `"x"`}, {Name: "C", Value: "4"}, {Name: "P_A", Value: "1"}, {Name: "P_B", Value: "2 3"}}
	if err != nil || !slices.Equal(got.Variables, want) {
		t.Errorf("%+v %v, expected %+v", got, err, want)
	}
	files := map[string]string{}
	for _, in := range got.Inputs {
		files[filepath.Base(in.File)] = in.ID
	}
	if id, err := hostfs.LookAtFile(f.path("a")); err != nil || files["a"] != id || id == "" {
		t.Errorf("%q %v, read %q", id, err, files["a"])
	}
	if id, known := files["none"]; !known || id != "" {
		t.Errorf("a file that was not there is noted as %q", id)
	}
	if got, err := f.read(); err != nil || len(got.Inputs)+len(got.Variables) > 0 {
		t.Errorf("%+v %v of no files", got, err)
	}
}

// What is wrong is said of each file, with what was read of it, and without a piece of
// it; and what a sandbox could not be given as a volume is not read.
func TestForStartErrors(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("run as root")
	}
	f := newFixture(t)
	f.write("good", "A=1\n")
	f.write("bad", "A=1\n s3cr3t\n")
	f.write("large", strings.Repeat("#\n", envfile.MaxBytes))
	if err := errors.Join(os.Mkdir(f.path("dir"), 0o700), unix.Mkfifo(f.path("fifo"), 0o600), os.Symlink("good", f.path("link")), os.Symlink(".", f.path("here")),
		os.Link(f.path("good"), f.path("hard"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.host.StatePath, "key"), []byte("A=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		want         string
		precondition bool
		noted        bool
	}{
		"none":                    {"/none: no such file or directory", true, false},
		"none/below":              {"no such file or directory", true, false},
		"good/below":              {"not a directory", true, false},
		"dir":                     {"/dir: expected a regular file", true, false},
		"fifo":                    {"/fifo: expected a regular file", true, false},
		"link":                    {"a component is a symbolic link", false, false},
		"here/good":               {"a component is a symbolic link", false, false},
		"bad":                     {"/bad:2:2: expected NAME=VALUE", true, true},
		"large":                   {"/large: it has more than", true, true},
		"/proc/1/environ":         {"it is on proc, which is never shared", false, false},
		"/etc/hostname":           {"does not allow /etc/hostname", false, false},
		f.host.StatePath + "/key": {"does not allow", false, false},
		"/dev/zero":               {"does not allow /dev/zero", false, false},
	} {
		got, err := f.read(desired.EnvFrom{File: "good"}, desired.EnvFrom{File: name})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "spec.envFrom[1].file: ") || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
			continue
		}
		if operation.PreconditionFailed(err) != c.precondition {
			t.Errorf("%s: %v: a failed precondition: %v", name, err, !c.precondition)
		}
		if noted := slices.ContainsFunc(got.Inputs, func(in actual.Input) bool { return strings.HasSuffix(in.File, "/"+name) && in.ID != "" }); noted != c.noted {
			t.Errorf("%s: read %+v", name, got.Inputs)
		}
	}
	// A writer that has it open has not finished.
	w, err := os.OpenFile(f.path("good"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.read(desired.EnvFrom{File: "good"}); err == nil || !strings.Contains(err.Error(), "it is being written") {
		t.Errorf("%v", err)
	}
	w.Close()
	if _, err := f.read(desired.EnvFrom{File: "good"}); err != nil {
		t.Error(err)
	}
}

// A file that is being written is waited for, and read as its writer left it.
func TestForStartWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("a", "A=1\n")
	w, err := os.OpenFile(f.path("a"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		read *Read
		err  error
	}
	done := make(chan result, 1)
	go func() {
		got, err := f.read(desired.EnvFrom{File: "a"})
		done <- result{got, err}
	}()
	_, err = w.WriteString("B=2\n")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if want := []envfile.Variable{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}; got.err != nil || !slices.Equal(got.read.Variables, want) {
		t.Errorf("%+v %v, expected %+v", got.read, got.err, want)
	}
	if id, err := hostfs.LookAtFile(f.path("a")); err != nil || got.read.Inputs[0].ID != id {
		t.Errorf("read %+v, it is %s %v", got.read.Inputs, id, err)
	}
}

// A variable that is the content of a file replaces those of environment files.
func TestForStartValues(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, text := range map[string]string{
		"env": "TOKEN=old\nA=1\n", "plain": "s3cr3t", "newline": "one\n", "windows": "two\r\n", "lines": "a\n\n", "empty": "", "nul": "s3\x00cr3t", "latin1": "s3cr3t\xe9",
		"large": strings.Repeat("x", envfile.MaxValue+1), "quotes": "\"x\" # y",
	} {
		f.write(name, text)
	}
	read := func(files map[string]string) (*Read, error) {
		sb := &desired.Sandbox{Spec: desired.Spec{EnvFrom: []desired.EnvFrom{{File: f.path("env")}}}}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			sb.Spec.Env = append(sb.Spec.Env, desired.EnvVar{Name: name, ValueFrom: &desired.EnvSource{File: f.path(files[name]), Optional: files[name] == "none"}})
		}
		return ForStart(t.Context(), sb, Documents{}, f.policy, f.host)
	}
	got, err := read(map[string]string{"TOKEN": "plain", "B": "newline", "C": "windows", "D": "lines", "E": "empty", "F": "none", "G": "quotes"})
	want := []envfile.Variable{{Name: "TOKEN", Value: "s3cr3t"}, {Name: "A", Value: "1"}, {Name: "B", Value: "one"}, {Name: "C", Value: "two"}, {Name: "D", Value: "a\n"}, {Name: "E"}, {Name: "G", Value: "\"x\" # y"}}
	if err != nil || !slices.Equal(got.Variables, want) {
		t.Errorf("%+v %v, expected %+v", got, err, want)
	}
	for file, want := range map[string]string{"nul": "byte 3 is a NUL", "latin1": "expected UTF-8", "large": "it has more than 131071 bytes", "missing": "no such file"} {
		if _, err := read(map[string]string{"X": file}); err == nil || !strings.HasPrefix(err.Error(), "spec.env[0].valueFrom.file: ") || !strings.Contains(err.Error(), want) || !operation.PreconditionFailed(err) {
			t.Errorf("%s: %v, expected %q", file, err, want)
		}
	}
}

// Volumes in memory have the files of the manifest and those of the host.
func TestForStartVolumes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("token", "s3cr3t")
	f.write("large", strings.Repeat("x", desired.MaxFileSize+1))
	f.write("full", strings.Repeat("x", desired.MaxFileSize))
	read := func(volumes ...desired.Volume) (*Read, error) {
		return ForStart(t.Context(), &desired.Sandbox{Spec: desired.Spec{Volumes: volumes}}, Documents{}, f.policy, f.host)
	}
	got, err := read(
		desired.Volume{Name: "conf", Config: &desired.FileSet{Data: map[string]string{"b": "2", "a": "1"}, Files: map[string]string{"none": f.path("none")}, Optional: true}},
		desired.Volume{Name: "keys", Secret: &desired.FileSet{Files: map[string]string{"d/token": f.path("token")}, Mode: "0400"}},
		desired.Volume{Name: "tmp", Tmpfs: &desired.Tmpfs{}},
	)
	want := map[string][]setup.MemoryFile{
		"conf": {{Name: "a", Mode: 0o444, Data: []byte("1")}, {Name: "b", Mode: 0o444, Data: []byte("2")}},
		"keys": {{Name: "d/token", Mode: 0o400, Data: []byte("s3cr3t")}},
	}
	if err != nil || !reflect.DeepEqual(got.Files, want) || len(got.Inputs) != 2 {
		t.Errorf("%+v %v, expected %+v", got, err, want)
	}
	var whole []desired.Volume
	for i := range desired.MaxFileSets/desired.MaxFileSize + 1 {
		whole = append(whole, desired.Volume{Name: fmt.Sprint(i), Secret: &desired.FileSet{Files: map[string]string{"f": f.path("full")}}})
	}
	if _, err := read(whole...); err == nil || !strings.Contains(err.Error(), "have more than 8388608 bytes") {
		t.Errorf("%v", err)
	}
	if _, err := read(whole[1:]...); err != nil {
		t.Error(err)
	}
	// Nothing more is read then, however often a file is named.
	often := map[string]string{}
	for i := range desired.MaxFileSet {
		often[fmt.Sprint(i)] = f.path("full")
	}
	for _, volumes := range [][]desired.Volume{
		{{Name: "a", Secret: &desired.FileSet{Files: often}}, {Name: "b", Config: &desired.FileSet{Files: often}}},
		append(slices.Clone(whole), whole...),
	} {
		got, err := read(volumes...)
		if err == nil || strings.Count(err.Error(), "have more than 8388608 bytes") != 1 || len(got.Inputs) != desired.MaxFileSets/desired.MaxFileSize+1 {
			t.Errorf("%d files read: %v", len(got.Inputs), err)
		}
	}
	_, err = read(desired.Volume{Name: "a", Config: &desired.FileSet{Files: map[string]string{"x.y": f.path("none")}}},
		desired.Volume{Name: "b", Secret: &desired.FileSet{Files: map[string]string{"l": f.path("large"), "e": "/etc/shadow"}}})
	for _, want := range []string{`spec.volumes[0].config.files["x.y"]: open `, "/none: no such file", "spec.volumes[1].secret.files.e: ", "does not allow /etc/shadow", "spec.volumes[1].secret.files.l: read ", "it has more than 1048576 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}

// A filesystem that does not answer holds no start for ever.
func TestForStartHangs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("its manifest is gone"))
	f.write("a", "A=1\n")
	got, err := ForStart(ctx, &desired.Sandbox{Spec: desired.Spec{EnvFrom: []desired.EnvFrom{{File: f.path("a")}}}}, Documents{}, f.policy, f.host)
	if err == nil && len(got.Variables) == 1 {
		return // it was faster
	}
	if err == nil || !strings.Contains(err.Error(), "its manifest is gone") {
		t.Errorf("%+v %v", got, err)
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("a", "A=1\n")
	if err := os.Symlink("a", f.path("link")); err != nil {
		t.Fatal(err)
	}
	var l Looker
	got := l.Look([]string{f.path("a"), f.path("none"), f.path("a/b"), f.path("link"), f.dir})
	if a := got[f.path("a")]; a.ID == "" || a.Missing || a.Problem != "" {
		t.Errorf("%+v", a)
	}
	for _, p := range []string{f.path("none"), f.path("a/b")} {
		if g := got[p]; !g.Missing || g.Problem != "" {
			t.Errorf("%s: %+v", p, g)
		}
	}
	for _, p := range []string{f.path("link"), f.dir} {
		if g := got[p]; g.Missing || g.Problem == "" {
			t.Errorf("%s: %+v", p, g)
		}
	}
	// Another one when it is written, replaced or cut; the same when only its inode changes.
	same := func() string { return l.Look([]string{f.path("a")})[f.path("a")].ID }
	first := same()
	if err := errors.Join(os.Chmod(f.path("a"), 0o640), os.Link(f.path("a"), f.path("hard"))); err != nil {
		t.Fatal(err)
	}
	if id := same(); id != first {
		t.Errorf("%s is %s after a chmod and a link", first, id)
	}
	f.write("a", "A=22\n")
	written := same()
	f.write("new", "A=22\n")
	if err := os.Rename(f.path("new"), f.path("a")); err != nil {
		t.Fatal(err)
	}
	if replaced := same(); written == first || replaced == written {
		t.Errorf("%s, written %s, replaced %s", first, written, replaced)
	}
}

// One look waits for what hangs, once for all; the next ones have no goroutine more.
func TestLookHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var mu sync.Mutex
	calls := 0
	l := Looker{look: func(path string) (string, error) {
		if path == "/hangs" {
			mu.Lock()
			calls++
			mu.Unlock()
			<-release
		}
		return "1", nil
	}}
	for range 3 {
		got := l.Look([]string{"/a", "/hangs"})
		if got["/a"] != (File{ID: "1"}) || got["/hangs"].Problem == "" {
			t.Errorf("%+v", got)
		}
	}
	mu.Lock()
	if calls != 1 {
		t.Errorf("%d goroutines wait", calls)
	}
	mu.Unlock()
	close(release)
	for l.Look([]string{"/hangs"})["/hangs"].ID != "1" {
		continue
	}
}

// However many files and directories hang, they take a bounded number of goroutines, and
// files elsewhere are looked at.
func TestLookHangsMany(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var waiting atomic.Int64
	l := Looker{wait: time.Millisecond, look: func(path string) (string, error) {
		if strings.HasPrefix(path, "/hangs") {
			waiting.Add(1)
			<-release
			waiting.Add(-1)
		}
		return "1", nil
	}}
	one := []string{"/answers/a"}
	for i := range 3000 {
		one = append(one, fmt.Sprintf("/hangs/%d", i))
	}
	one = append(one, "/zz/a")
	slices.Sort(one)
	ok := func(got map[string]File, paths ...string) bool {
		return !slices.ContainsFunc(paths, func(p string) bool { return got[p] != (File{ID: "1"}) })
	}
	for !ok(l.Look(one), "/answers/a", "/zz/a") {
		continue
	}
	if n := waiting.Load(); n > workers {
		t.Errorf("%d wait for one directory", n)
	}
	got := l.Look(one)
	if len(got) != len(one) || got["/hangs/9"].Problem != doesNotAnswer {
		t.Errorf("%d files, %+v", len(got), got["/hangs/9"])
	}
	many := []string{"/answers/a"}
	for i := range 3000 {
		many = append(many, fmt.Sprintf("/hangs%d/a", i))
	}
	for range 2 * mostHanging / workers {
		if got = l.Look(many); len(got) != len(many) {
			t.Fatalf("%d files", len(got))
		}
	}
	if n := waiting.Load(); n > mostHanging {
		t.Errorf("%d wait", n)
	}
	close(release)
	for !ok(l.Look(many), many...) {
		continue
	}
}

// So do reads of starts.
func TestForStartHangsMany(t *testing.T) {
	f := newFixture(t)
	f.write("a", "A=1\n")
	hanging.Add(mostHanging)
	_, err := f.read(desired.EnvFrom{File: "a"})
	hanging.Add(-mostHanging)
	if err == nil || !strings.Contains(err.Error(), "1000 operations wait for files of filesystems that do not answer") {
		t.Errorf("%v", err)
	}
	if _, err := f.read(desired.EnvFrom{File: "a"}); err != nil {
		t.Error(err)
	}
	if n := hanging.Load(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// Of a volume that shows one file or directory nothing else is read.
func TestForStartOneFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("token", "s3cr3t")
	f.write("other", "x")
	for name, c := range map[string]struct {
		set  desired.FileSet
		sub  string
		want string
		err  string
	}{
		"data":               {desired.FileSet{Data: map[string]string{"a": "1", "b": "2"}}, "b", "b=2", ""},
		"a directory":        {desired.FileSet{Data: map[string]string{"d/a": "1", "d/e/b": "2", "da": "3"}}, "d", "d/a=1 d/e/b=2", ""},
		"a file":             {desired.FileSet{Files: map[string]string{"t": f.path("token"), "none": f.path("none")}}, "t", "t=s3cr3t", ""},
		"it may be missing":  {desired.FileSet{Files: map[string]string{"t": f.path("token"), "none": f.path("none")}, Optional: true}, "none", "", ""},
		"it is missing":      {desired.FileSet{Files: map[string]string{"t": f.path("token"), "none": f.path("none")}}, "none", "", "spec.volumes[0].config.files.none: open "},
		"both kinds":         {desired.FileSet{Data: map[string]string{"d/a": "1"}, Files: map[string]string{"d/t": f.path("token"), "o": f.path("other")}}, "d", "d/a=1 d/t=s3cr3t", ""},
		"a missing document": {desired.FileSet{Name: "nosuch"}, "k", "", `spec.volumes[0].subPath: Config "nosuch" does not exist`},
	} {
		set := c.set
		sb := &desired.Sandbox{Spec: desired.Spec{Volumes: []desired.Volume{{Name: "v", SubPath: c.sub, Config: &set}}}}
		got, err := ForStart(t.Context(), sb, Documents{}, f.policy, f.host)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var files []string
		for _, m := range got.Files["v"] {
			files = append(files, m.Name+"="+string(m.Data))
		}
		if s := strings.Join(files, " "); err != nil || s != c.want {
			t.Errorf("%s: %s %v, expected %s", name, s, err, c.want)
		}
		// What is noted is what is looked at.
		if refs := sb.Spec.FileRefs(); len(refs) != len(got.Inputs) {
			t.Errorf("%s: %d files noted, expected %d", name, len(got.Inputs), len(refs))
		}
	}
}
