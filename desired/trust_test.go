// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/desiredtest"
	"sandboxctl.dev/desired/yamldoc"
)

func TestPolicyFile(t *testing.T) {
	t.Parallel()
	desiredtest.RequireRoot(t)
	top := t.TempDir()
	path := filepath.Join(top, "d", "policy.yaml")
	desiredtest.Must(t, os.Mkdir(top+"/d", 0o755))
	f := NewPolicyFile(PolicyOptions{Path: path, Optional: true, Protected: []string{top + "/state"}})
	expect := func(what, source, wantErr string) *HostPolicy {
		t.Helper()
		p, err := f.Load()
		switch {
		case wantErr != "" && (err == nil || p != nil || !strings.Contains(err.Error(), wantErr)):
			t.Errorf("%s: %v %v, expected %q", what, p, err, wantErr)
		case wantErr == "" && (err != nil || p.Source() != source || p.Digest() == ""):
			t.Errorf("%s: %+v %v, expected one from %s", what, p, err, source)
		}
		return p
	}
	write := func(lines string) {
		t.Helper()
		desiredtest.Must(t, os.WriteFile(path+".new", []byte(policyHead+lines), 0o644))
		desiredtest.Must(t, os.Rename(path+".new", path))
	}
	p := expect("no file", "built-in", "")
	if _, err := p.AllowedRoot(VolumePath, "/srv/sandboxctl/x", true); err != nil {
		t.Error(err)
	}
	write("hostPaths: [{path: " + top + ", access: readWrite}]\n")
	p = expect("a file", path, "")
	if again := expect("the same", path, ""); again != p {
		t.Error("nothing changed, and the policy is another")
	}
	for own, shared := range map[string]bool{"/other": true, "/state": false, "/state/x": false, "": false, "/d": false, "/d/policy.yaml": false} {
		if _, err := p.AllowedRoot(VolumePath, top+own, true); (err == nil) != shared {
			t.Errorf("%q: %v", own, err)
		}
	}
	write("hostPaths: []\n")
	if changed := expect("a change", path, ""); changed == p || changed.Digest() == p.Digest() || len(changed.HostPaths) != 0 {
		t.Errorf("a change is not noticed: %+v", changed)
	}
	// Whatever is wrong allows nothing, and mended it counts again.
	for name, c := range map[string]struct {
		spoil, mend func() error
		want        string
	}{
		"others write it":      {func() error { return os.Chmod(path, 0o666) }, func() error { return os.Chmod(path, 0o644) }, "can be written by others (mode 0666)"},
		"it is others'":        {func() error { return os.Chown(path, desiredtest.Stranger, 0) }, func() error { return os.Chown(path, 0, 0) }, "belongs to user 54321"},
		"others write beside":  {func() error { return os.Chmod(top+"/d", 0o777) }, func() error { return os.Chmod(top+"/d", 0o755) }, "/d can be written by others (mode 0777)"},
		"malformed":            {func() error { return os.WriteFile(path, []byte(policyHead+"hostPath: []\n"), 0o644) }, func() error { return os.WriteFile(path, []byte(policyHead), 0o644) }, path + ":3:1: hostPath: unknown field"},
		"empty":                {func() error { return os.Truncate(path, 0) }, func() error { return os.WriteFile(path, []byte(policyHead), 0o644) }, "expected one document"},
		"a directory":          {func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) }, func() error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte(policyHead), 0o644)) }, "expected a regular file"},
		"a fifo":               {func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }, func() error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte(policyHead), 0o644)) }, "expected a regular file"},
		"a link to nothing":    {func() error { return errors.Join(os.Remove(path), os.Symlink("none", path)) }, func() error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte(policyHead), 0o644)) }, "a link on the way leads to nothing"},
		"larger than anything": {func() error { return os.Truncate(path, yamldoc.MaxFileBytes+1) }, func() error { return os.WriteFile(path, []byte(policyHead), 0o644) }, "at most 1048576 are allowed"},
	} {
		desiredtest.Must(t, c.spoil())
		expect(name, "", c.want)
		desiredtest.Must(t, c.mend())
		expect(name+", mended", path, "")
	}
	// Half of it is not believed.
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	desiredtest.Must(t, err)
	_, err = w.WriteString(policyHead + "fileAccess: [direct]\n")
	desiredtest.Must(t, err)
	expect("half", "", "it is being written")
	_, err = w.WriteString("hostPaths: []\n")
	desiredtest.Must(t, errors.Join(err, w.Close()))
	if p := expect("whole", path, ""); len(p.HostPaths) != 0 || len(p.FileAccess) != 1 {
		t.Errorf("%+v", p)
	}
	desiredtest.Must(t, os.Remove(path))
	expect("removed", "built-in", "")
	f = NewPolicyFile(PolicyOptions{Path: path})
	expect("removed, and meant", "", "no such file")
	if f.Options().Path != path {
		t.Error(f.Options())
	}
}

// policySource is a policy that tests change.
type policySource struct {
	policy *HostPolicy
	err    error
}

func (s *policySource) load() (*HostPolicy, error) { return s.policy, s.err }

func TestDirPolicy(t *testing.T) {
	t.Parallel()
	src := &policySource{policy: DefaultHostPolicy()}
	tr := newTree(t, DirOptions{Policy: src.load})
	direct := strings.Replace(with("fileAccess: direct"), "web", "direct", 1)
	tr.write("a.yaml", named("a"))
	tr.write("direct.yaml", direct+"---\n"+named("beside"))
	s := tr.settled()
	tr.expect(s, "a beside", ReasonInvalidManifests)
	if len(s.Problems) != 1 || s.Problems[0].Name != "direct" || s.Problems[0].Reason != ReasonPolicyDenied || s.Problems[0].Position != (Position{File: "direct.yaml", Line: 7, Column: 3}) || s.Policy != src.policy {
		t.Errorf("%+v", s.Problems)
	}
	// What did not change is judged anew by another policy.
	src.policy = policyOf(t, "fileAccess: [proxy, direct]")
	s = tr.settled()
	tr.expect(s, "a beside direct", "")
	if again := tr.load(); again != s {
		t.Error("nothing changed, and the snapshot is another")
	}
	src.policy = policyOf(t, "fileAccess: [direct]")
	tr.expect(tr.settled(), "direct", ReasonInvalidManifests)
	// Also what is being written at that moment, which keeps what it said.
	src.policy = policyOf(t, "fileAccess: [proxy, direct]")
	tr.expect(tr.settled(), "a beside direct", "")
	w, err := os.OpenFile(filepath.Join(tr.top, "m", "direct.yaml"), os.O_WRONLY|os.O_APPEND, 0)
	desiredtest.Must(t, err)
	_, err = w.WriteString("# more\n")
	desiredtest.Must(t, err)
	tr.expect(tr.load(), "a beside direct", ReasonUnsettled)
	src.policy = policyOf(t, "platforms: [systrap]")
	s = tr.load()
	tr.expect(s, "a beside", ReasonUnsettled)
	if len(s.Problems) != 1 || s.Problems[0].Name != "direct" {
		t.Errorf("%+v", s.Problems)
	}
	desiredtest.Must(t, w.Close())
	tr.expect(tr.settled(), "a beside", ReasonInvalidManifests)
	// No policy: no manifest counts, and nothing is missing.
	src.policy, src.err = nil, errors.New("read host policy: it is broken")
	s = tr.settled()
	tr.expect(s, "", ReasonPolicyUnusable)
	if s.Policy != nil || !strings.Contains(s.Message, "it is broken") {
		t.Errorf("%+v", s)
	}
	if left := tr.dir.untilRecheck(); left > policyRecheck {
		t.Errorf("the policy is looked at again in %s only", left)
	}
	src.policy, src.err = policyOf(t, "fileAccess: [proxy, direct]"), nil
	tr.expect(tr.settled(), "a beside direct", "")
}

// What is on record is judged as well: it is not parsed, and told with its place
// all the same.
func TestDirPolicyKnown(t *testing.T) {
	t.Parallel()
	text := with("fileAccess: direct")
	docs, _ := Decode("f.yaml", []byte(text))
	known := func(string) *Entry { return &Entry{Sandbox: docs[0].Sandbox, Hash: docs[0].hash} }
	if _, ps := decode("f.yaml", []byte(text), policyOf(t, "fileAccess: [direct]"), known); len(ps) > 0 {
		t.Error(ps)
	}
	if docs, ps := decode("f.yaml", []byte(text), DefaultHostPolicy(), known); len(ps) != 1 || ps[0].Line != 7 || docs[0].Sandbox != nil {
		t.Errorf("%+v %v", docs, ps)
	}
}

// What others may write is not read, and nothing follows from its absence.
func TestDirUntrusted(t *testing.T) {
	t.Parallel()
	desiredtest.RequireRoot(t)
	tr := newTree(t, DirOptions{})
	m := filepath.Join(tr.top, "m")
	tr.write("a.yaml", named("a"))
	tr.write("sub/b.yaml", named("b"))
	tr.write(".data/c.yaml", named("c"))
	desiredtest.Must(t, os.Symlink(".data/c.yaml", m+"/c.yaml"))
	desiredtest.Must(t, os.Symlink(".data", m+"/linked"))
	desiredtest.Must(t, os.Rename(m+"/linked", m+"/.linked"))
	tr.expect(tr.settled(), "a b c", "")
	for name, c := range map[string]struct {
		spoil, mend     func() error
		names, reason   string
		wantFile, wants string
	}{
		"the directory":       {func() error { return os.Chmod(m, 0o775) }, func() error { return os.Chmod(m, 0o755) }, "", ReasonDirectoryUntrusted, "", "/m can be written by others (mode 0775)"},
		"its owner":           {func() error { return os.Chown(m, desiredtest.Stranger, 0) }, func() error { return os.Chown(m, 0, 0) }, "", ReasonDirectoryUntrusted, "", "/m belongs to user 54321"},
		"sticky":              {func() error { return os.Chmod(m, 0o777|fs.ModeSticky) }, func() error { return os.Chmod(m, 0o755) }, "", ReasonDirectoryUntrusted, "", "/m can be written by others (mode 1777)"},
		"above it":            {func() error { return os.Chmod(tr.top, 0o777) }, func() error { return os.Chmod(tr.top, 0o755) }, "", ReasonDirectoryUntrusted, "", "can be written by others (mode 0777)"},
		"a file":              {func() error { return os.Chmod(m+"/a.yaml", 0o666) }, func() error { return os.Chmod(m+"/a.yaml", 0o644) }, "b c", ReasonInvalidManifests, "a.yaml", "the file can be written by others (mode 0666)"},
		"the owner of a file": {func() error { return os.Chown(m+"/a.yaml", desiredtest.Stranger, 0) }, func() error { return os.Chown(m+"/a.yaml", 0, 0) }, "b c", ReasonInvalidManifests, "a.yaml", "the file belongs to user 54321"},
		"a directory below":   {func() error { return os.Chmod(m+"/sub", 0o777) }, func() error { return os.Chmod(m+"/sub", 0o755) }, "a c", ReasonInvalidManifests, "sub", "the directory sub can be written by others (mode 0777)"},
		"behind a link":       {func() error { return os.Chmod(m+"/.data", 0o777) }, func() error { return os.Chmod(m+"/.data", 0o755) }, "a b", ReasonInvalidManifests, "c.yaml", "/.data can be written by others (mode 0777)"},
		"a link":              {func() error { return os.Lchown(m+"/c.yaml", desiredtest.Stranger, 0) }, func() error { return os.Lchown(m+"/c.yaml", 0, 0) }, "a b", ReasonInvalidManifests, "c.yaml", "/c.yaml is a link of user 54321"},
		"a linked directory": {
			func() error {
				return errors.Join(os.Rename(m+"/.linked", m+"/linked"), os.Remove(m+"/c.yaml"), os.Chmod(m+"/.data", 0o777))
			},
			func() error {
				return errors.Join(os.Rename(m+"/linked", m+"/.linked"), os.Symlink(".data/c.yaml", m+"/c.yaml"), os.Chmod(m+"/.data", 0o755))
			},
			"a b", ReasonInvalidManifests, "linked", "/.data can be written by others (mode 0777)",
		},
	} {
		desiredtest.Must(t, c.spoil())
		s := tr.settled()
		tr.expect(s, c.names, c.reason)
		switch {
		case c.wantFile == "":
			if !strings.Contains(s.Message, c.wants) {
				t.Errorf("%s: %s", name, s.Message)
			}
		case len(s.Problems) != 1 || s.Problems[0].File != c.wantFile || !strings.Contains(s.Problems[0].Message, c.wants):
			t.Errorf("%s: %+v", name, s.Problems)
		}
		desiredtest.Must(t, c.mend())
		if s = tr.settled(); names(s) != "a b c" || !s.Complete {
			t.Errorf("%s, mended: %q %s", name, names(s), s.Message)
		}
	}
}

// A directory that was made safe again is noticed by itself.
func TestDirTrustedAgain(t *testing.T) {
	t.Parallel()
	tr := newTree(t, DirOptions{})
	tr.write("a.yaml", named("a"))
	m := filepath.Join(tr.top, "m")
	desiredtest.Must(t, os.Chmod(m, 0o777))
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- tr.dir.Run(ctx) }()
	defer func() {
		cancel()
		desiredtest.Must(t, <-done)
	}()
	told := func() {
		t.Helper()
		select {
		case <-tr.dir.Changes():
		case <-time.After(time.Minute):
			t.Fatal("nothing tells of it")
		}
	}
	told() // the watch is there
	tr.expect(tr.settled(), "", ReasonDirectoryUntrusted)
	desiredtest.Must(t, os.Chmod(m, 0o755))
	told()
	tr.expect(tr.settled(), "a", "")
}
