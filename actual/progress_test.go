// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a daemon says of its progress counts while it lives, and not what is damaged,
// too large or of another process. What can't be replaced is removed.
func TestProgress(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	file := filepath.Join(s.Path(), progressFile)
	read := func() string {
		b, _ := s.Progress()
		return string(b)
	}
	if got := read(); got != "" {
		t.Errorf("before anything was said: %q", got)
	}
	cmd, id := child(t)
	p := &Progress{Process: id, State: json.RawMessage(`{"a":1}`)}
	must(t, s.PutProgress(p))
	if got := read(); got != `{"a":1}` {
		t.Errorf("it says %q", got)
	}
	for what, content := range map[string]string{"empty": "", "cut": `{"process":{`, "nobody's": `{"state":{}}`, "large": strings.Repeat(" ", maxProgress) + `{}`} {
		must(t, os.WriteFile(file, []byte(content), 0o600))
		if got := read(); got != "" {
			t.Errorf("%s: it says %q", what, got)
		}
	}
	must(t, s.PutProgress(p))
	if err := s.PutProgress(&Progress{Process: id, State: json.RawMessage(`"` + strings.Repeat("x", maxProgress) + `"`)}); err == nil {
		t.Error("one that is too large was written")
	}
	if got := read(); got != "" {
		t.Errorf("after one that could not be written it says %q", got)
	}
	must(t, s.PutProgress(p))
	must(t, cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait()
	if got := read(); got != "" {
		t.Errorf("after the end of the daemon it says %q", got)
	}
	must(t, os.Remove(file))
	must(t, os.Mkdir(file, 0o700))
	if err := s.PutProgress(p); err == nil || read() != "" {
		t.Errorf("over a directory: %v", err)
	}
}
