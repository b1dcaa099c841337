// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What a disk does not give has not changed: an image that can't be read now is not called
// damaged, or a cable that was loose for a moment would have all images fetched again.
func TestUnreadableIsNoDamage(t *testing.T) {
	t.Parallel()
	for name, checksum := range map[string]string{"with a checksum": "crc32c:00000000", "without": ""} {
		dir, err := os.Open(t.TempDir()) // a read of it fails with EISDIR
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		i := &Image{file: dir, hex: "00", Info: Info{Checksum: checksum}}
		if err := i.verify(t.Context()); errors.Is(err, ErrDamaged) || !errors.Is(err, unix.EISDIR) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
