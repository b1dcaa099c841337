// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// The mappings of a process are the kernel's, of a namespace that may be
// anybody's.
func FuzzParseIDMap(f *testing.F) {
	f.Add("0 0 4294967295\n")
	f.Add("         0     100000      65536\n     65536 1 1\n")
	f.Add("0 0\n")
	f.Add("-1 0 1\n")
	f.Add("0 0 99999999999\n")
	f.Fuzz(func(t *testing.T, s string) {
		maps, err := Parse(s)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Fatalf("%q", err)
			}
			return
		}
		var b bytes.Buffer
		for _, m := range maps {
			for _, n := range []uint32{m.ContainerID, m.HostID, m.Size} {
				b.WriteString(" " + strconv.FormatUint(uint64(n), 10))
			}
			b.WriteByte('\n')
		}
		again, err := Parse(b.String())
		if err != nil || len(again) != len(maps) {
			t.Fatalf("%v: %v", again, err)
		}
	})
}
