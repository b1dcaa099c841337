// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"math"
	"reflect"
	"testing"
)

// What confines the exit record is what its rules compile to, whatever the number of
// its descriptor is.
func TestExitRecord(t *testing.T) {
	t.Parallel()
	for _, fd := range []uint32{0, 3, 4, 17, 255, 256, 4096, 70000, math.MaxInt32} {
		got, err := ExitRecord(fd)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := ExitRecordRules(fd).Build()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("descriptor %d: %v, expected %v", fd, got, want)
		}
	}
}
