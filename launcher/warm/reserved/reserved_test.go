// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// host is who keeps processes waiting, without processes.
type host struct {
	Book
	n int
}

func (h *host) take(pool string) bool {
	return h.Take(pool, func() int { return h.n }, func() bool {
		if h.n == 0 {
			return false
		}
		h.n--
		return true
	})
}

func (h *host) ready(t *testing.T, want map[string]int) {
	t.Helper()
	if got := h.Ready(h.n); !maps.Equal(got, want) {
		t.Errorf("ready: %v, expected %v", got, want)
	}
}

// What is kept for a pool is for its claims alone; they take what is for everybody when it has none.
func TestTake(t *testing.T) {
	t.Parallel()
	h := &host{n: 4}
	h.Want(map[string]Pool{"a": {Size: 1}, "b": {Size: 2}})
	if n := h.Total(64); n != 3 {
		t.Errorf("%d in all", n)
	}
	h.ready(t, map[string]int{"a": 1, "b": 2})
	if !h.take("") || h.take("") {
		t.Error("everybody is to have one")
	}
	if !h.take("a") || h.take("a") || h.take("c") {
		t.Error("a is to have one, and nobody what is b's")
	}
	h.ready(t, map[string]int{"b": 2})
	h.n++ // made again: it is for who lacks one
	h.ready(t, map[string]int{"a": 1, "b": 2})
	h.n = 1 // some have ended
	h.ready(t, map[string]int{"a": 1})
}

// A new template uses up what waits, or has it made again; one that nothing is fit for keeps nothing,
// nor does a pool that is gone, or beyond what the host allows.
func TestWant(t *testing.T) {
	t.Parallel()
	h := &host{n: 4}
	h.Want(map[string]Pool{"a": {Size: 2, Template: "1"}, "b": {Size: 2, Template: "1", Recreate: true}})
	h.Total(64)
	h.ready(t, map[string]int{"a": 2, "b": 2})
	h.Want(map[string]Pool{"a": {Size: 2, Template: "2"}, "b": {Size: 2, Template: "2", Recreate: true}})
	h.ready(t, map[string]int{"a": 2})
	if h.take("b") || h.take("") {
		t.Error("what is of an older template was taken")
	}
	if n := h.Spent(); n != 2 || h.Spent() != 0 {
		t.Errorf("%d of an older template", n)
	}
	h.n -= 2 // by who was told
	h.ready(t, map[string]int{"a": 2})
	h.n += 2
	h.ready(t, map[string]int{"a": 2, "b": 2})
	h.Unfit("b", "its network")
	if n := h.Total(64); n != 2 || !h.take("") {
		t.Errorf("%d are kept, although none is fit for b", n)
	}
	// The host policy may give it a limit that is fit.
	mended := map[string]Pool{"a": {Size: 2, Template: "2"}, "b": {Size: 2, Template: "2", Policy: "p", Recreate: true}}
	h.Want(mended)
	if n := h.Total(64); n != 4 || h.Spent() != 0 {
		t.Errorf("%d are kept after the host policy has changed", n)
	}
	h.Unfit("b", "its network")
	h.Want(mended)
	if n := h.Total(64); n != 2 {
		t.Errorf("%d are kept, although nothing has changed", n)
	}
	h.Want(map[string]Pool{"b": {Size: 2, Template: "3", Recreate: true}})
	if n := h.Total(1); n != 1 {
		t.Errorf("%d are kept, of 1 that the host allows", n)
	}
	h.ready(t, map[string]int{"b": 1})
}

// No two starts get the same process, and no claim what is another pool's.
func TestBookRandom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := &host{}
		pools := map[string]Pool{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name")
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				pools = maps.Clone(pools)
				pools[name] = Pool{Size: rapid.IntRange(0, 3).Draw(rt, "size"), Template: rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "template"), Recreate: rapid.Bool().Draw(rt, "recreate")}
				h.Want(pools)
			case 1:
				pools = maps.Clone(pools)
				delete(pools, name)
				h.Want(pools)
			case 2:
				if h.n < h.Total(6)+1 {
					h.n++
				}
			case 3:
				spent := h.Spent()
				h.n = max(0, h.n-spent)
			default:
				before, n := h.Ready(h.n), h.n
				for _, claim := range []string{name, ""} {
					took := h.take(claim)
					after := h.Ready(h.n)
					for other, k := range before {
						if other != claim && after[other] != k {
							rt.Fatalf("%q took what is kept for %s: %v, then %v", claim, other, before, after)
						}
					}
					if took != (h.n == n-1) || !took && h.n != n {
						rt.Fatalf("took %v: %d, then %d", took, n, h.n)
					}
					before, n = after, h.n
				}
			}
			sum := 0
			for p, k := range h.Ready(h.n) {
				if sum += k; k > pools[p].Size {
					rt.Fatalf("%s has %d of %d", p, k, pools[p].Size)
				}
			}
			if sum > h.n {
				rt.Fatalf("%d are kept of %d that wait", sum, h.n)
			}
		}
	})
}
