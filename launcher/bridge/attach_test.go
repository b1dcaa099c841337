// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
)

// What a network costs the start of a sandbox, beside others that are on it, and what of that
// is which step.
func BenchmarkAttach(b *testing.B) {
	for _, n := range []int{0, 50, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			chosen := func(name string) *actual.Record {
				rec := w.mustChoose(name, networks.Network{})
				rec.Phase, rec.Spec = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
				w.put(rec)
				return rec
			}
			steps := map[string]time.Duration{}
			// step is one on the host of the test.
			step := func(what string, fn func() error) {
				b.Helper()
				began := time.Now()
				if err := w.ns.Do(fn); err != nil {
					b.Fatal(err)
				}
				steps[what] += time.Since(began)
			}
			for i := range n {
				chosen(fmt.Sprint("other", i))
			}
			step("others", w.k.rules.Do)
			delete(steps, "others")
			for b.Loop() {
				guest, err := netns.New()
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				rec := chosen("one")
				steps["choose"] += time.Since(began)
				step("names", func() error {
					dir, err := w.k.ShowNames(rec)
					if err == nil {
						err = dir.Close()
					}
					return err
				})
				step("forwarding", func() error { return w.k.forwarding(rec) })
				step("rules", w.k.rules.Do)
				step("flows", func() error { return w.k.endAll(rec) })
				step("link", func() error { return links.Attach(guest, Links(rec)[0]) })
				b.StopTimer()
				if err := w.ns.Do(func() error { return links.Remove(rec.Attachments[0].Link) }); err != nil {
					b.Fatal(err)
				}
				guest.Close()
				w.gone("one")
				if err := w.ns.Do(w.k.rules.Do); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			for what, took := range steps {
				b.ReportMetric(float64(took.Microseconds())/float64(b.N)/1000, "ms/"+what)
			}
		})
	}
}
