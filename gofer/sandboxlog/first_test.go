// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// When the application wrote its first line is what its log says, as long as the line
// is there.
func TestFirst(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 123456789).UTC()
	line := func(stream Stream, tag string) string {
		return at.Format(TimeFormat) + " " + string(stream) + " " + tag + " text\n"
	}
	later := at.Add(time.Hour).Format(TimeFormat) + " stdout F later\n"
	for name, c := range map[string]struct {
		files map[string]string
		known bool
	}{
		"stdout":              {map[string]string{"1.log": line(Stdout, "F") + later}, true},
		"stderr, a part":      {map[string]string{"1.log": line(Stderr, "P") + later}, true},
		"no log":              {nil, false},
		"an empty log":        {map[string]string{"1.log": ""}, false},
		"no whole line yet":   {map[string]string{"1.log": strings.TrimSuffix(line(Stdout, "F"), "\n")}, false},
		"rotated":             {map[string]string{"1.log": later, "1.log.1": line(Stdout, "F")}, false},
		"rotated, not anew":   {map[string]string{"1.log.1": line(Stdout, "F")}, false},
		"lines were dropped":  {map[string]string{"1.log": line(Internal, "F") + later}, false},
		"nonsense before it":  {map[string]string{"1.log": "nonsense\n" + line(Stdout, "F")}, true},
		"much nonsense first": {map[string]string{"1.log": strings.Repeat("x\n", maxFirst) + line(Stdout, "F")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for f, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := First(os.DirFS(dir), "1.log")
			switch {
			case c.known && (err != nil || !got.Equal(at)):
				t.Errorf("%v, %v; expected %v", got, err, at)
			case !c.known && (!errors.Is(err, ErrNotFirst) || !got.IsZero()):
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// A log that its writer has made is read so too, also from its first byte on.
func TestFirstOfWriter(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	if _, err := First(os.DirFS(dir), "1.log"); !errors.Is(err, ErrNotFirst) {
		t.Errorf("before anything is written: %v", err)
	}
	put(w, "first")
	put(w, "second")
	if at, err := First(os.DirFS(dir), "1.log"); err != nil || !at.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("%v, %v", at, err)
	}
	rotateNow(t, w)
	put(w, "third")
	if _, err := First(os.DirFS(dir), "1.log"); !errors.Is(err, ErrNotFirst) {
		t.Errorf("after it was rotated: %v", err)
	}
}
