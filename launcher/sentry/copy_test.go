// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/wire"
)

// A sentry that stands still in the middle of a copy does not hold the client, and what it
// says at the end does not speak to a terminal.
func TestCopyHostile(t *testing.T) {
	t.Parallel()
	c, peer := controlPair(t)
	hold := make(chan struct{})
	defer close(hold)
	sinkOf(t, peer, `{"success":true}`, func(fd int) {
		_, _ = unix.Write(fd, []byte("\n\x00\x00\x00\x10half"))
		<-hold
	})
	p, err := c.CopyOut(t.Context(), "/x", false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	p.stalled = 100 * time.Millisecond
	begin := time.Now()
	if b, err := io.ReadAll(p.FrameReader); string(b) != "half" || err == nil || !strings.Contains(err.Error(), "nothing has come or gone") {
		t.Errorf("%q, %v", b, err)
	}
	if time.Since(begin) > 30*time.Second {
		t.Error("held")
	}

	c, peer = controlPair(t)
	sinkOf(t, peer, `{"success":true}`, utter("\n\x00\x00\x00\x00{\"error\":\"\\u001b[2Jevil\"}"))
	if p, err = c.CopyOut(t.Context(), "/x", false); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if _, err := p.Finish(); err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "evil") {
		t.Errorf("%v", err)
	}
}

// A copy into a sandbox ends with the sentry's reason, also when it takes nothing more.
func TestCopyIn(t *testing.T) {
	t.Parallel()
	c, peer := controlPair(t)
	sinkOf(t, peer, `{"success":true}`, func(fd int) {
		_, _ = unix.Write(fd, []byte("\n"))
		_ = unix.Shutdown(fd, unix.SHUT_RD)
		var b strings.Builder
		_ = wire.NewFrameWriter(&b).End(&wire.CopyResult{Error: "no space left"})
		_, _ = unix.Write(fd, []byte(b.String()))
	})
	p, err := c.CopyIn(t.Context(), "/x", true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for range 1000 {
		if _, err = p.Write(make([]byte, 1<<16)); err != nil {
			break
		}
	}
	if _, ferr := p.Finish(); err == nil || ferr == nil || !strings.Contains(ferr.Error(), "no space left") {
		t.Errorf("%v, %v", err, ferr)
	}
}
