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
