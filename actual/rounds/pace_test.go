// SPDX-License-Identifier: Apache-2.0

package rounds

import (
	"testing"
	"testing/synctest"
	"time"
)

// What is pending for ever is looked at less and less often, and never has all be looked at more
// often than every time. A failure is tried again soon.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := Pace{Every: 30 * time.Second, Soon: 2 * time.Second}
		if !p.Due() {
			t.Error("the first look is not due")
		}
		rounds, looks := 0, 0
		for began := time.Now(); time.Since(began) < 10*time.Minute; rounds++ {
			if p.Due() {
				looks++
				p.Looked()
			}
			time.Sleep(p.Wait(false, true))
		}
		if looks != 20 || rounds < 20 || rounds > 46 {
			t.Errorf("%d looks and %d rounds in ten minutes", looks, rounds)
		}
		p.Looked()
		for _, step := range []struct {
			failed, pending bool
			want            time.Duration
		}{
			{false, false, 30 * time.Second},
			{false, true, 2 * time.Second},
			{false, true, 4 * time.Second},
			{true, true, 2 * time.Second},
			{true, false, 2 * time.Second},
			{false, true, 2 * time.Second},
			{false, true, 4 * time.Second},
			{false, true, 8 * time.Second},
			{false, true, 16 * time.Second},
			{false, true, 30 * time.Second},
			{false, true, 30 * time.Second},
		} {
			if got := p.Wait(step.failed, step.pending); got != step.want {
				t.Errorf("failed %t, pending %t: %s, expected %s", step.failed, step.pending, got, step.want)
			}
		}
		time.Sleep(29 * time.Second)
		if got := p.Wait(true, true); p.Due() || got != time.Second {
			t.Errorf("%s before the look that is due, expected 1s", got)
		}
		time.Sleep(2 * time.Second)
		if got := p.Wait(false, true); !p.Due() || got != 0 {
			t.Errorf("%s after the look is due", got)
		}
	})
}
