// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile/declared"
)

// Volumes that have not changed are not read again, however many there are; whatever is done to
// one is seen at the next look.
func TestVolumeLooker(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	state, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	l := &VolumeLooker{State: state}
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("v%d", i))
	}
	look := func(reads int) map[string]declared.Found {
		t.Helper()
		l.read = 0
		out := l.Look(names)
		if l.read != reads || len(out) != len(names) {
			t.Errorf("%d of %d read, expected %d", l.read, len(out), reads)
		}
		return out
	}
	if look(0)["v7"].Exists {
		t.Error("it is there before anything was made")
	}
	s, err := volume.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, n := range names {
		if _, err := s.Declare(t.Context(), n, volume.Want{}); err != nil {
			t.Fatal(err)
		}
	}
	look(50)
	look(0)
	// A volume that was removed, one that another program has put into its place, and one of
	// another size.
	meta := filepath.Join(path, volume.Directory, "v7", "meta.json")
	for _, c := range []struct {
		name string
		do   func() error
		want declared.Found
	}{
		{"another size", func() error {
			b := []byte(`{"version": 1, "name": "v7", "size": 65536}`)
			if err := os.WriteFile(meta+".new", b, 0o600); err != nil {
				return err
			}
			return os.Rename(meta+".new", meta)
		}, declared.Found{Exists: true, Size: 65536}},
		{"gone", func() error { return os.RemoveAll(filepath.Dir(meta)) }, declared.Found{}},
		{"made again", func() error {
			_, err := s.Declare(t.Context(), "v7", volume.Want{})
			return err
		}, declared.Found{Exists: true}},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got := look(1)["v7"]; got != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	look(0)
	names = names[:1]
	look(0)
	if len(l.seen) != 1 {
		t.Errorf("%d are kept in mind", len(l.seen))
	}
}
