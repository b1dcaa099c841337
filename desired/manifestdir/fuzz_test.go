// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/yamldoc"
)

// A directory that holds a file of any name and content, beside a good one: the
// good one is read, and the other is an entry, a problem or a warning (a file for
// another program), never nothing.
func FuzzDirectory(f *testing.F) {
	other := []byte("---\n" + minimal)
	for _, name := range []string{"a.yaml", "a.json", "a.yml", "a.yaml~", ".a.yaml", "a\x1b.yaml", "a\u009b.yaml", "a\xff.yaml", "a\u202e.yaml", " .yaml", "-rf.yaml", "--help.json", "\n.yml"} {
		f.Add(name, other)
		f.Add(name, []byte("not: [a manifest"))
		f.Add(name, []byte("not: a manifest"))
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if name == "" || name == "." || name == ".." || len(name) > 255 || bytes.ContainsAny([]byte(name), "/\x00") || name == "good.yaml" || name == desired.IgnoreFile {
			return
		}
		dir := t.TempDir()
		good := []byte(strings.Replace(minimal, "web", "s1", 1))
		if err := os.WriteFile(filepath.Join(dir, "good.yaml"), good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		snap, err := New(Options{Path: dir, Once: true}).Load(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		mine := snap.Lookup("s1") != nil
		others := len(snap.Entries) + len(snap.Problems) + len(snap.Warnings)
		if mine {
			others--
		}
		looked := IsManifestName(name) && name[0] != '.'
		if looked != (others > 0) || snap.Complete != (len(snap.Problems) == 0) {
			t.Fatalf("%q: %d entries, %v", name, len(snap.Entries), snap.Problems)
		}
		if !looked && !mine {
			t.Fatalf("%q hides the other file: %v", name, snap.Problems)
		}
		for _, p := range snap.Problems {
			if !yamldoc.Printable(p.File, "") {
				t.Fatalf("%q is shown", p.File)
			}
		}
		for _, w := range snap.Warnings {
			if !yamldoc.Printable(w.File, "") {
				t.Fatalf("%q is shown", w.File)
			}
		}
	})
}
