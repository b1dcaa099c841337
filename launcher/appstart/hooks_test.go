// SPDX-License-Identifier: Apache-2.0

package appstart

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/launcher/guest"
	"sandboxctl.dev/launcher/setup"
)

// What the sandbox says of its hooks is the sandbox's word: bounded, harmless to
// a terminal, and never taken for more than that it has failed.
func TestWaitStart(t *testing.T) {
	t.Parallel()
	st := &setup.Setup{Containers: []setup.Container{{StartHooks: &setup.Hooks{}}}}
	for said, want := range map[string]string{
		guest.Passed:                    "",
		"":                              "ended before",
		"no \x1b[31m":                   "no  [31m",
		guest.Passed + "no application": "no application",
		strings.Repeat("x", 5000):       strings.Repeat("x", maxStartReport),
	} {
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		// Twice: the pipe of the attempt before is in the way.
		var r, w *os.File
		for range 2 {
			r.Close()
			w.Close()
			if r, w, err = makeStartReport(int(dir.Fd())); err != nil {
				t.Fatal(err)
			}
		}
		defer r.Close()
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("out of time"))
		if err := Wait(ctx, st, r); err == nil || !strings.Contains(err.Error(), "out of time") {
			t.Errorf("an open pipe: %v", err)
		}
		cancel()
		if _, err := w.WriteString(said); err != nil {
			t.Fatal(err)
		}
		w.Close()
		err = Wait(t.Context(), st, r)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, expected %.20q", said, err, want)
		}
		if err != nil && len(err.Error()) > maxStartReport+10 {
			t.Errorf("%d bytes", len(err.Error()))
		}
	}
}
