// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A link may be swapped between two looks at a file: what was read then is never
// taken for what the link leads to now.
func TestDirLinkSwapped(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{Once: true})
	m := filepath.Join(tr.top, "m")
	for i, version := range []string{"zero", "one"} {
		tr.write(fmt.Sprintf("..%d/web.yaml", i), strings.Replace(minimal, "[sh]", "["+version+"]", 1))
	}
	lead := func(to int) error {
		return errors.Join(os.Symlink(fmt.Sprintf("..%d", to), filepath.Join(m, "..tmp")), os.Rename(filepath.Join(m, "..tmp"), filepath.Join(m, "..data")))
	}
	tr.must(errors.Join(lead(0), os.Symlink("..data/web.yaml", filepath.Join(m, "web.yaml"))))
	for round := range 60 {
		swapped := make(chan error, 1)
		go func() {
			for i := range 50 + round%2 {
				if err := lead(i % 2); err != nil {
					swapped <- err
					return
				}
			}
			swapped <- nil
		}()
		for done := false; !done; {
			tr.load()
			select {
			case err := <-swapped:
				tr.must(err)
				done = true
			default:
			}
		}
		s := tr.settled()
		want := []string{"one", "zero"}[round%2]
		if e := s.Lookup("web"); e == nil || e.Sandbox.Spec.Command[0] != want {
			t.Fatalf("round %d: %+v, expected %s; %s", round, e, want, s.Message)
		}
	}
}

// A directory below is replaced, and looked at between its going and the coming of
// the other: that moment is no removal, for any reader.
func TestDirBelowReplacedBetweenLooks(t *testing.T) {
	t.Parallel()
	for _, once := range []bool{false, true} {
		for name, replace := range map[string]func(at string) error{
			"by a link to an empty one": func(at string) error {
				return errors.Join(os.Mkdir(filepath.Dir(at)+"/.empty", 0o755), os.Symlink(".empty", at))
			},
			"by an empty one": func(at string) error { return os.Mkdir(at, 0o755) },
		} {
			tr := newTree(t, Options{Once: once})
			tr.write("a.yaml", named("a"))
			tr.write("sub/c.yaml", named("c"))
			tr.expect(tr.settled(), "a c", "")
			sub := filepath.Join(tr.top, "m", "sub")
			tr.must(os.Rename(sub, filepath.Join(tr.top, "m", ".sub")))
			tr.load()
			tr.must(replace(sub))
			s := tr.settled()
			if s.Removed("c", "sub/c.yaml") || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Message, "not the directory that was there before") {
				t.Errorf("%s, once %t: %+v", name, once, s)
			}
		}
	}
}
