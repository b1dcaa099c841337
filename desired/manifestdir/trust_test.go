// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/desiredtest"
)

// accessPolicy allows the values of spec.fileAccess that are in it.
type accessPolicy string

func (p accessPolicy) CheckFiles([]desired.FileRef) []desired.FieldError { return nil }
func (p accessPolicy) CheckVolume(string) []desired.FieldError           { return nil }
func (p accessPolicy) CheckNetwork(string) []desired.FieldError          { return nil }

func (p accessPolicy) Check(s *desired.Sandbox) []desired.FieldError {
	if strings.Contains(string(p), s.Spec.FileAccess) {
		return nil
	}
	return []desired.FieldError{{Field: "spec.fileAccess", Message: "not allowed"}}
}

func (p accessPolicy) Source() string         { return "a test" }
func (p accessPolicy) Digest() string         { return string(p) }
func (p accessPolicy) Bounds() desired.Bounds { return desired.Bounds{} }

// policySource is a policy that tests change.
type policySource struct {
	policy desired.Policy
	err    error
}

func (s *policySource) load() (desired.Policy, error) { return s.policy, s.err }

func TestDirPolicy(t *testing.T) {
	t.Parallel()
	src := &policySource{policy: accessPolicy("proxy")}
	tr := newTree(t, Options{Policy: src.load})
	direct := strings.Replace(with("fileAccess: direct"), "web", "direct", 1)
	tr.write("a.yaml", named("a"))
	tr.write("direct.yaml", direct+"---\n"+named("beside"))
	s := tr.settled()
	tr.expect(s, "a beside", desired.ReasonInvalidManifests)
	if len(s.Problems) != 1 || s.Problems[0].Name != "direct" || s.Problems[0].Reason != desired.ReasonPolicyDenied || s.Problems[0].Position != (desired.Position{File: "direct.yaml", Line: 7, Column: 3}) || s.Policy != src.policy {
		t.Errorf("%+v", s.Problems)
	}
	// What did not change is judged anew by another policy.
	src.policy = accessPolicy("proxy direct")
	s = tr.settled()
	tr.expect(s, "a beside direct", "")
	if again := tr.load(); again != s {
		t.Error("nothing changed, and the snapshot is another")
	}
	src.policy = accessPolicy("direct")
	tr.expect(tr.settled(), "direct", desired.ReasonInvalidManifests)
	// Also what is being written at that moment, which keeps what it said.
	src.policy = accessPolicy("proxy direct")
	tr.expect(tr.settled(), "a beside direct", "")
	w, err := os.OpenFile(filepath.Join(tr.top, "m", "direct.yaml"), os.O_WRONLY|os.O_APPEND, 0)
	desiredtest.Must(t, err)
	_, err = w.WriteString("# more\n")
	desiredtest.Must(t, err)
	tr.expect(tr.load(), "a beside direct", desired.ReasonUnsettled)
	src.policy = accessPolicy("proxy")
	s = tr.load()
	tr.expect(s, "a beside", desired.ReasonUnsettled)
	if len(s.Problems) != 1 || s.Problems[0].Name != "direct" {
		t.Errorf("%+v", s.Problems)
	}
	desiredtest.Must(t, w.Close())
	tr.expect(tr.settled(), "a beside", desired.ReasonInvalidManifests)
	// No policy: no manifest counts, and nothing is missing.
	src.policy, src.err = nil, errors.New("read host policy: it is broken")
	s = tr.settled()
	tr.expect(s, "", desired.ReasonPolicyUnusable)
	if s.Policy != nil || !strings.Contains(s.Message, "it is broken") {
		t.Errorf("%+v", s)
	}
	if at := tr.dir.recheckAt(); at.IsZero() || time.Until(at) > policyRecheck {
		t.Errorf("the policy is looked at again at %s only", at)
	}
	src.policy, src.err = accessPolicy("proxy direct"), nil
	tr.expect(tr.settled(), "a beside direct", "")
}

// What others may write is not read, and nothing follows from its absence.
func TestDirUntrusted(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "only root may give files to others")
	tr := newTree(t, Options{})
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
		"the directory":       {func() error { return os.Chmod(m, 0o775) }, func() error { return os.Chmod(m, 0o755) }, "", desired.ReasonDirectoryUntrusted, "", "/m can be written by others (mode 0775)"},
		"its owner":           {func() error { return os.Chown(m, desiredtest.Stranger, 0) }, func() error { return os.Chown(m, 0, 0) }, "", desired.ReasonDirectoryUntrusted, "", "/m belongs to user 54321"},
		"sticky":              {func() error { return os.Chmod(m, 0o777|fs.ModeSticky) }, func() error { return os.Chmod(m, 0o755) }, "", desired.ReasonDirectoryUntrusted, "", "/m can be written by others (mode 1777)"},
		"above it":            {func() error { return os.Chmod(tr.top, 0o777) }, func() error { return os.Chmod(tr.top, 0o755) }, "", desired.ReasonDirectoryUntrusted, "", "can be written by others (mode 0777)"},
		"a file":              {func() error { return os.Chmod(m+"/a.yaml", 0o666) }, func() error { return os.Chmod(m+"/a.yaml", 0o644) }, "b c", desired.ReasonInvalidManifests, "a.yaml", "the file can be written by others (mode 0666)"},
		"the owner of a file": {func() error { return os.Chown(m+"/a.yaml", desiredtest.Stranger, 0) }, func() error { return os.Chown(m+"/a.yaml", 0, 0) }, "b c", desired.ReasonInvalidManifests, "a.yaml", "the file belongs to user 54321"},
		"a directory below":   {func() error { return os.Chmod(m+"/sub", 0o777) }, func() error { return os.Chmod(m+"/sub", 0o755) }, "a c", desired.ReasonInvalidManifests, "sub", "the directory sub can be written by others (mode 0777)"},
		"behind a link":       {func() error { return os.Chmod(m+"/.data", 0o777) }, func() error { return os.Chmod(m+"/.data", 0o755) }, "a b", desired.ReasonInvalidManifests, "c.yaml", "/.data can be written by others (mode 0777)"},
		"a link":              {func() error { return os.Lchown(m+"/c.yaml", desiredtest.Stranger, 0) }, func() error { return os.Lchown(m+"/c.yaml", 0, 0) }, "a b", desired.ReasonInvalidManifests, "c.yaml", "/c.yaml is a symbolic link that belongs to user 54321"},
		"a linked directory": {
			func() error {
				return errors.Join(os.Rename(m+"/.linked", m+"/linked"), os.Remove(m+"/c.yaml"), os.Chmod(m+"/.data", 0o777))
			},
			func() error {
				return errors.Join(os.Rename(m+"/linked", m+"/.linked"), os.Symlink(".data/c.yaml", m+"/c.yaml"), os.Chmod(m+"/.data", 0o755))
			},
			"a b", desired.ReasonInvalidManifests, "linked", "/.data can be written by others (mode 0777)",
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
	tr := newTree(t, Options{})
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
	tr.expect(tr.settled(), "", desired.ReasonDirectoryUntrusted)
	desiredtest.Must(t, os.Chmod(m, 0o755))
	told()
	tr.expect(tr.settled(), "a", "")
}
