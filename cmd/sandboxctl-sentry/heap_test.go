// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// gcPercent is what is in force.
func gcPercent() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// The first collection sets the usual percentage, also if it was asked for: a heap
// that has grown to nine times its size would stay that large.
func TestDeferGC(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for name, collect := range map[string]func(){
		"settled": debug.FreeOSMemory,
		"much": func() {
			for range 64 {
				garbage = make([]byte, 1<<20)
			}
		},
	} {
		deferGC()
		if got := gcPercent(); got != bootGCPercent {
			t.Fatalf("%s: %d %% while it boots", name, got)
		}
		collect()
		for deadline := time.Now().Add(time.Minute); gcPercent() != idleGCPercent && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if got := gcPercent(); got != idleGCPercent {
			t.Errorf("%s: %d %% after a collection", name, got)
		}
	}
}

var garbage []byte
