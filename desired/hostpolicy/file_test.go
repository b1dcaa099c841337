// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/desiredtest"
	"sandboxctl.dev/desired/yamldoc"
)

func TestPolicyFile(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "only root may give files to others")
	top := t.TempDir()
	path := filepath.Join(top, "d", "policy.yaml")
	desiredtest.Must(t, os.Mkdir(top+"/d", 0o755))
	f := NewFile(Options{Path: path, Optional: true, Protected: []string{top + "/state"}})
	expect := func(what, source, wantErr string) *Policy {
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
	f = NewFile(Options{Path: path})
	expect("removed, and meant", "", "no such file")
	if f.Options().Path != path {
		t.Error(f.Options())
	}
}

// What is on record is judged as well: it is not parsed, and told with its place
// all the same.
func TestDirPolicyKnown(t *testing.T) {
	t.Parallel()
	text := desiredtest.With("fileAccess: direct")
	docs, _ := desired.Decode("f.yaml", []byte(text))
	known := func(string) *desired.Entry {
		return &desired.Entry{Sandbox: docs[0].Sandbox, Hash: desired.Hash(docs[0].Sandbox)}
	}
	if _, ps := (desired.Decoder{Policy: policyOf(t, "fileAccess: [direct]"), Known: known}).Decode("f.yaml", []byte(text)); len(ps) > 0 {
		t.Error(ps)
	}
	if docs, ps := (desired.Decoder{Policy: Default(), Known: known}).Decode("f.yaml", []byte(text)); len(ps) != 1 || ps[0].Line != 7 || docs[0].Sandbox != nil {
		t.Errorf("%+v %v", docs, ps)
	}
}
