// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What was built comes back byte for byte or not at all, whatever has become of its
// file.
func TestSetupFile(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, sample("web"))
	path := filepath.Join(s.Path(), SandboxesDir, "web", SetupFile)
	if _, err := s.Setup("web"); !errors.Is(err, errNoSetup) {
		t.Errorf("without a file: %v", err)
	}
	if err := s.DropSetup("web"); err != nil {
		t.Errorf("without a file: %v", err)
	}
	want := []byte(`{"version":1,"a":"b"}`)
	must(t, s.PutSetup("web", want))
	if got, err := s.Setup("web"); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s %v", got, err)
	}
	good, err := os.ReadFile(path)
	must(t, err)
	write := func(b []byte) { must(t, os.WriteFile(path, b, 0o600)) }
	for n := range good {
		write(good[:n])
		if got, err := s.Setup("web"); err == nil {
			t.Fatalf("the first %d bytes are %s", n, got)
		}
		for bit := range 8 {
			b := bytes.Clone(good)
			b[n] ^= 1 << bit
			write(b)
			if got, err := s.Setup("web"); err == nil {
				t.Fatalf("with bit %d of byte %d changed it is %s", bit, n, got)
			}
		}
	}
	record, err := os.ReadFile(metaPath(s, "web"))
	must(t, err)
	for name, b := range map[string][]byte{"a record": record, "more": append(bytes.Clone(good), '\n'), "zeros": make([]byte, len(good)), "too much": append(bytes.Clone(good), make([]byte, maxSetup)...)} {
		write(b)
		if got, err := s.Setup("web"); err == nil || errors.Is(err, errNoSetup) {
			t.Errorf("%s is %s %v", name, got, err)
		}
	}
	write(good)
	must(t, os.Chmod(path, 0o666))
	if _, err := s.Setup("web"); err == nil || !strings.Contains(err.Error(), "may write it") {
		t.Errorf("a file that others may write: %v", err)
	}
	must(t, errors.Join(os.Remove(path), os.Symlink("meta.json", path)))
	if _, err := s.Setup("web"); err == nil {
		t.Error("a link is followed")
	}
	must(t, os.Remove(path))
	must(t, s.PutSetup("web", want))
	if got, err := s.Setup("web"); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s %v", got, err)
	}
	if err := s.PutSetup("web", make([]byte, maxSetup)); err == nil {
		t.Error("more is written than is read")
	}
	must(t, s.DropSetup("web"))
	if _, err := s.Setup("web"); !errors.Is(err, errNoSetup) {
		t.Errorf("removed: %v", err)
	}
	if err := s.PutSetup("gone", want); err == nil {
		t.Error("it is written for a name that has no directory")
	}
}
