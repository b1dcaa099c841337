// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"errors"
	"os"
	"testing"
)

// TestShareSyncs: a directory with shared syncs is still one of the host, in which names
// are moved, and says why it can't be forced to disk.
func TestShareSyncs(t *testing.T) {
	t.Parallel()
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := ShareSyncs(Of(f))
	if OSFile(d) != f {
		t.Error("it is not the same directory")
	}
	if err := errors.Join(d.Mkdir("a", 0o700), d.Rename("a", d, "b", 0), d.Sync()); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if d.Sync() == nil {
		t.Error("a directory that is closed is forced to disk")
	}
}
