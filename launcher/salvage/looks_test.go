// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/launcher/cgroup"
)

// Starts that follow each other share a look at all processes of the host: for a
// moment while a daemon before may not have noticed yet that its state directory is
// another one, and for longer after that.
func TestStrayLooks(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		starts int
		every  time.Duration
		looks  int
	}{
		"one":                    {1, 0, 1},
		"fifty at once":          {50, 0, 1},
		"fifty, slowly":          {50, 30 * time.Millisecond, 1},
		"one a second, when new": {10, time.Second, 4},
		"one a second":           {60 * 5, time.Second, 23},
		"one each three minutes": {10, 3 * time.Minute, 10},
		"one each fifty seconds": {21, 50 * time.Second, 11},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newStrayHost(t)
			looks := 0
			l.strays.find = func(host) (*Search, error) { looks++; return &Search{}, nil }
			synctest.Test(t, func(t *testing.T) {
				for range c.starts {
					if err := l.strays.Check(l.store, &cgroup.Host{}, "web"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(c.every)
				}
			})
			if looks != c.looks {
				t.Errorf("%d looks for %d starts, expected %d", looks, c.starts, c.looks)
			}
		})
	}
}
