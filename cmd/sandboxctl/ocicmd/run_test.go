// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/oci"
)

// A signal that comes while a container is deleted, and its poststop hooks run, is no
// failure; one that can't be passed on is.
func TestSignalDeleted(t *testing.T) {
	t.Parallel()
	r, err := oci.Open(oci.Options{Root: t.TempDir(), SentryPath: "/nonexistent/sentry", Warn: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	var failed []error
	c := &container{r: r, id: "gone", failed: func(err error) { failed = append(failed, err) }}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE} {
		c.Signal(t.Context(), sig)
	}
	if err := c.HangUp(t.Context()); err != nil || len(failed) > 0 {
		t.Errorf("%v, %v", err, failed)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if c.Signal(t.Context(), unix.SIGTERM); len(failed) != 1 {
		t.Errorf("of a state that can't be read: %v", failed)
	}
}
