// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Every command of a client that was killed before it named it is found, in
// whatever order commands and sessions are listed, and no other.
func TestUnclaimed(t *testing.T) {
	groups := func(tgs ...*kernel.ThreadGroup) map[*kernel.ThreadGroup]bool {
		out := map[*kernel.ThreadGroup]bool{}
		for _, tg := range tgs {
			out[tg] = true
		}
		return out
	}
	first, second, third, named := new(kernel.ThreadGroup), new(kernel.ThreadGroup), new(kernel.ThreadGroup), new(kernel.ThreadGroup)
	early := &session{before: groups(named)}
	late := &session{before: groups(named, first)}
	for name, c := range map[string]struct {
		all     []*kernel.ThreadGroup
		claimed map[*kernel.ThreadGroup]bool
		lost    []*session
		want    []*kernel.ThreadGroup
	}{
		"none lost":                   {[]*kernel.ThreadGroup{first, named}, groups(named), nil, nil},
		"not started yet":             {[]*kernel.ThreadGroup{named}, groups(named), []*session{early}, nil},
		"one":                         {[]*kernel.ThreadGroup{named, first}, groups(named), []*session{early}, []*kernel.ThreadGroup{first}},
		"the later is listed first":   {[]*kernel.ThreadGroup{second, first}, groups(), []*session{early, late}, []*kernel.ThreadGroup{second, first}},
		"the later ended first":       {[]*kernel.ThreadGroup{second, first}, groups(), []*session{late, early}, []*kernel.ThreadGroup{second, first}},
		"named by one that ended":     {[]*kernel.ThreadGroup{third, named}, groups(third), []*session{early, late}, nil},
		"there before all that ended": {[]*kernel.ThreadGroup{first, named}, groups(), []*session{late}, nil},
	} {
		if got := unclaimed(slices.Clone(c.all), c.claimed, c.lost); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
