// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// Hooks that the system does not let be read now are run later, and not passed
// over; what can't be understood will not be understood then either.
func TestAfterEndUnread(t *testing.T) {
	t.Parallel()
	top := filepath.Join(t.TempDir(), "state")
	store, err := actual.OpenStore(top)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Claim("web"); err != nil {
		t.Fatal(err)
	}
	l := &Launcher{store: store}
	file := filepath.Join(top, "sandboxes/web", hooksFile)
	rec := &actual.Record{Name: "web"}
	if err := l.afterEnd(t.Context(), rec); err != nil || len(rec.Warnings) > 0 {
		t.Errorf("without hooks: %v, %v", err, rec.Warnings)
	}
	// As good as a read error: a directory is opened, and can't be read.
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.afterEnd(t.Context(), rec); !errors.Is(err, unix.EISDIR) || len(rec.Warnings) > 0 {
		t.Errorf("unread: %v, %v", err, rec.Warnings)
	}
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := l.afterEnd(t.Context(), rec); err != nil || len(rec.Warnings) != 1 || !strings.Contains(rec.Warnings[0].Message, "decode hooks") {
		t.Errorf("damaged: %v, %v", err, rec.Warnings)
	}
}
