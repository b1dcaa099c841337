// SPDX-License-Identifier: Apache-2.0

package doctor

import "testing"

// It says how many wait, how many are to, and that memory is why there are fewer.
func TestWarmText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n, pairs, kernels int
		free              uint64
		text              string
	}{
		{0, 0, 0, 1 << 30, "none, as the host policy has it (`warm`)"},
		{0, 0, 0, 0, "none, as the host policy has it (`warm`)"},
		{1, 1, 0, 1 << 30, "1 for sandboxes that start next; `warm: 1` of the host policy is how many a daemon keeps"},
		{1, 0, 0, 1 << 30, "1 for sandboxes that start next; `warm: 0` of the host policy is how many a daemon keeps"},
		{2, 8, 0, 600 << 20, "2 for sandboxes that start next; `warm: 8` of the host policy is how many a daemon keeps; the 600 MiB of memory that the host has free are enough for 2"},
		{3, 2, 1, 1 << 30, "3 for sandboxes that start next; `warm: 2` and `warmKernels: 1` of the host policy is how many a daemon keeps"},
		{2, 1, 2, 600 << 20, "2 for sandboxes that start next; `warm: 1` and `warmKernels: 2` of the host policy is how many a daemon keeps; the 600 MiB of memory that the host has free are enough for 2"},
	} {
		if got := warmText(c.n, c.pairs, c.kernels, c.free); got != c.text {
			t.Errorf("%q, expected %q", got, c.text)
		}
	}
}
