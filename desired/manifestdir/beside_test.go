// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"errors"
	"os"
	"testing"
	"time"

	"sandboxctl.dev/desired"
)

// A log in the manifests directory wakes nobody when it is written, and a file of any
// name does that a manifest is a link to.
func TestWatchBeside(t *testing.T) {
	t.Parallel()
	v := &scenery{newTree(t, Options{PollEvery: time.Hour})}
	v.write("a.yaml", named("a"))
	v.write("daemon.log", "")
	v.watching()
	whole := func(want string) func(*desired.Snapshot) bool {
		return func(s *desired.Snapshot) bool { return names(s) == want && s.Complete }
	}
	v.eventually("start", whole("a"))
	write := func(p, text string) {
		f, err := os.OpenFile(v.at(p), os.O_APPEND|os.O_WRONLY, 0)
		v.must(err)
		_, err = f.WriteString(text)
		v.must(errors.Join(err, f.Close()))
	}
	for quiet := false; !quiet; {
		select {
		case <-v.dir.Changes():
			v.load()
		case <-time.After(10 * settle):
			quiet = true
		}
	}
	for range 1000 {
		write("daemon.log", "line\n")
	}
	// The end of the noise is told by a change that counts, and is the only one.
	v.write("b.yaml", named("b"))
	woken := 0
	for s := v.load(); !whole("a b")(s); s = v.load() {
		<-v.dir.Changes()
		woken++
	}
	if woken > 20 {
		t.Errorf("woken %d times", woken)
	}
	v.write("text.txt", named("c"))
	v.ln("text.txt", "c.yaml")
	v.eventually("a link", whole("a b c"))
	write("text.txt", "  suspend: true\n")
	v.eventually("what a link leads to", func(s *desired.Snapshot) bool {
		e := s.Lookup("c")
		return e != nil && e.Sandbox.Spec.Suspend
	})
}
