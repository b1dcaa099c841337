// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func idRange(inside, outside, size uint32) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: inside, HostID: outside, Size: size}
}

func TestCheckIDMap(t *testing.T) {
	t.Parallel()
	many := make([]specs.LinuxIDMapping, maxIDMap+1)
	for _, c := range []struct {
		maps []specs.LinuxIDMapping
		want string
	}{
		{[]specs.LinuxIDMapping{idRange(0, 100000, 65536)}, ""},
		{[]specs.LinuxIDMapping{idRange(1, 200000, 9), idRange(0, 1000, 1)}, ""},
		{nil, "expected 1 to 340 ranges, got 0"},
		{many, "got 341"},
		{[]specs.LinuxIDMapping{idRange(0, 1, 0)}, "at least one id"},
		{[]specs.LinuxIDMapping{idRange(0, 1<<32-2, 2)}, "within 0 to 4294967294"},
		{[]specs.LinuxIDMapping{idRange(1<<32-1, 0, 1)}, "within 0 to"},
		{[]specs.LinuxIDMapping{idRange(0, 10, 10), idRange(9, 100, 2)}, "m[1]: it overlaps with m[0]"},
		{[]specs.LinuxIDMapping{idRange(0, 10, 10), idRange(20, 19, 2)}, "overlaps"},
		{[]specs.LinuxIDMapping{idRange(1, 1, 1)}, "0 must be mapped"},
	} {
		err := checkIDMap("m", c.maps)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, expected %q", c.maps, err, c.want)
		}
	}
	if id, ok := OnHost([]specs.LinuxIDMapping{idRange(0, 5, 1), idRange(10, 100, 5)}, 14); id != 104 || !ok {
		t.Errorf("14 is %d on the host", id)
	}
	if _, ok := OnHost([]specs.LinuxIDMapping{idRange(10, 100, 5)}, 15); ok {
		t.Error("an id that is not mapped is one on the host")
	}
}
