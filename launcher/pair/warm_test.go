// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"sandboxctl.dev/launcher/sentry"
)

// What the application of a warm sentry was given is closed as soon as it has been told to start,
// whether it was: the reader of its output sees the end although the start goes on, with its hooks.
func TestStartWarmClosesFiles(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	app := &application{}
	app.files.Give(w)
	p := &Pair{app: app}
	if err := p.Start(t.Context(), &sentry.Control{}); err == nil {
		t.Error("it was started from nothing")
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if files := app.files.Descriptors(); len(files) != 0 {
		t.Fatalf("%d files are open", len(files))
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the output has no end: %v", err)
	}
	if err := app.close(); err != nil {
		t.Error(err)
	}
}
