// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"testing"

	"sandboxctl.dev/desired"
)

// Limits that do not fit into a number are no negative ones.
func TestMilliCPU(t *testing.T) {
	t.Parallel()
	const most = 1<<63 - 1
	for _, c := range []struct {
		quota  int64
		period uint64
		want   int64
	}{
		{50000, 100000, 500},
		{200000, 100000, 2000},
		{1, 1 << 63, desired.MinCPU},
		{1, 1<<64 - 1, desired.MinCPU},
		{most, 1, desired.MaxCPU},
		{most, 1<<64 - 1, 499},
		{most / 1000, 1, desired.MaxCPU},
		{most/1000 + 1, 1, desired.MaxCPU},
	} {
		if got := milliCPU(c.quota, c.period); got != c.want {
			t.Errorf("%d of %d: %d, expected %d", c.quota, c.period, got, c.want)
		}
	}
}
