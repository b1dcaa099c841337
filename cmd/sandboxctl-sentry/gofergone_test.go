// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

// The sentry of an image notices the end of its gofer by the pipe that it logs to: it
// waits while somebody reads, whatever is written, and not longer.
func TestWaitUnread(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("a line that nobody has read yet\n"); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() { done <- waitUnread(int(w.Fd())) }()
	select {
	case <-done:
		t.Fatal("it did not wait")
	default:
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if !<-done {
		t.Error("the end of the reader is not noticed")
	}
	// What is no pipe ends nothing.
	if waitUnread(1 << 20) {
		t.Error("a descriptor that is not there passes for a gofer that has ended")
	}
}
