// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"hash/crc32"
	"testing"
)

// What is summed plainly has the checksum that the instructions of the processor give, so
// that what one program writes another one reads.
func TestPlainChecksum(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("a record \x00\xff of a sandbox"), 400)
	for n := range len(text) {
		want := crc32.Checksum(text[:n], crc32.MakeTable(crc32.Castagnoli))
		if got := crc32.Checksum(text[:n], plain()); got != want {
			t.Fatalf("%d bytes: %08x, expected %08x", n, got, want)
		}
	}
	// Before and after the table of the processor takes over.
	for range 2*plainBytes/len(text) + 1 {
		if got, want := checksum(text), crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)); got != want {
			t.Fatalf("%08x, expected %08x", got, want)
		}
	}
	if plainSummed.Load() < plainBytes {
		t.Errorf("%d bytes were summed plainly, expected that it ends after %d", plainSummed.Load(), plainBytes)
	}
}
