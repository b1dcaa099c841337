// SPDX-License-Identifier: Apache-2.0

package doctor

import "testing"

// It says how many wait, how many are to, and that memory is why there are fewer.
func TestWarmText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		waits
		free uint64
		text string
	}{
		{waits{}, 1 << 30, "none, as the host policy has it (`warm`)"},
		{waits{}, 0, "none, as the host policy has it (`warm`)"},
		{waits{now: 1, pairs: 1}, 1 << 30, "1 for sandboxes that start next; `warm: 1` of the host policy is how many a daemon keeps"},
		{waits{now: 1}, 1 << 30, "1 for sandboxes that start next; `warm: 0` of the host policy is how many a daemon keeps"},
		{waits{now: 2, pairs: 8}, 600 << 20, "2 for sandboxes that start next; `warm: 8` of the host policy is how many a daemon keeps; the 600 MiB of memory that the host has free are enough for 2"},
		{waits{now: 3, pairs: 2, kernels: 1}, 1 << 30, "3 for sandboxes that start next; `warm: 2` and `warmKernels: 1` of the host policy is how many a daemon keeps"},
		{waits{now: 1, places: 2, pairs: 1}, 1 << 30, "1 for sandboxes that start next; `warm: 1` of the host policy is how many a daemon keeps; 2 more as places of pools"},
		{waits{places: 2}, 1 << 30, "0 for sandboxes that start next; `warm: 0` of the host policy is how many a daemon keeps; 2 more as places of pools"},
		{waits{now: 1, pairs: 1, kernels: 2, noKernels: "by default it is so"}, 300 << 20, "1 for sandboxes that start next; `warm: 1` and `warmKernels: 2` of the host policy is how many a daemon keeps; no kernel is booted ahead, as no sandbox could take one: by default it is so"},
		{waits{now: 2, pairs: 1, kernels: 2}, 600 << 20, "2 for sandboxes that start next; `warm: 1` and `warmKernels: 2` of the host policy is how many a daemon keeps; the 600 MiB of memory that the host has free are enough for 2"},
	} {
		if got := warmText(c.waits, c.free); got != c.text {
			t.Errorf("%q, expected %q", got, c.text)
		}
	}
}
