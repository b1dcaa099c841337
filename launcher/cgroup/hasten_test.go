// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"testing"
	"time"
)

// Nothing is moved by it, however often it is called.
func TestHasten(t *testing.T) {
	t.Parallel()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.Hasten()
	}
	for deadline := time.Now().Add(time.Minute); hastening.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	if after, err := os.ReadFile("/proc/self/cgroup"); err != nil || string(after) != string(before) {
		t.Errorf("%s became %s: %v", before, after, err)
	}
}
