// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
)

// What is parsed is the field that the kernel has put there, whatever the
// program calls itself.
func FuzzParseStat(f *testing.F) {
	f.Add("evil", uint64(4242), []byte("1 (a) b) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 77 1 1\n"))
	f.Add("a) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20\n", uint64(0), []byte(""))
	f.Add("((((", uint64(math.MaxUint64), []byte(strings.Repeat(") ", 60)))
	f.Add("\x00\xff)", uint64(1), []byte("1 (a) S"+strings.Repeat(" -1", 50)))
	f.Fuzz(func(t *testing.T, name string, start uint64, b []byte) {
		line := fmt.Sprintf("7 (%s) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20 21\n", name, start)
		if got, err := parseStat([]byte(line)); err != nil || got != start {
			t.Fatalf("%q: %d %v", line, got, err)
		}
		// Anything at all: a number that is in it, or an error.
		if got, err := parseStat(b); err == nil && !bytes.Contains(b, []byte(strconv.FormatUint(got, 10))) {
			t.Fatalf("%q: %d", b, got)
		}
	})
}
