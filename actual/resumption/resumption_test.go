// SPDX-License-Identifier: Apache-2.0

package resumption

import "testing"

func TestResumption(t *testing.T) {
	t.Parallel()
	begun := &Resumption{ID: "1", Unready: true}
	for what, c := range map[string]struct {
		r                       *Resumption
		refuses, pending, began bool
	}{
		"none":         {nil, false, false, false},
		"begun":        {begun, false, true, true},
		"ready":        {begun.Ready(), false, false, true},
		"failed":       {begun.Fails("x"), true, false, false},
		"a checkpoint": {&Resumption{}, false, false, false},
	} {
		if c.r.Refuses("1") != c.refuses || c.r.Pending() != c.pending || c.r.Began() != c.began {
			t.Errorf("%s: %+v", what, c.r)
		}
	}
	if begun.Fails("x").Refuses("2") {
		t.Error("another snapshot is refused")
	}
}
