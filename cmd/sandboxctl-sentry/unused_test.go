// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/seccheck"
)

// gVisor makes no list of trace points when it boots, after that of the sentry. A trace
// session is refused: it would watch nothing.
func TestListNoTracePoints(t *testing.T) {
	listNoTracePoints()
	seccheck.Initialize() // as boot.New does
	if n := len(seccheck.Points); n != 0 {
		t.Errorf("%d trace points", n)
	}
	session := &seccheck.SessionConfig{Name: seccheck.DefaultSessionName, Points: []seccheck.PointConfig{{Name: "container/start"}}}
	if err := seccheck.Create(session, false); err == nil || !strings.Contains(err.Error(), "container/start") {
		t.Errorf("a trace session: %v", err)
	}
}

// The memory profiler takes no samples.
func TestNoMemoryProfile(t *testing.T) {
	if runtime.MemProfileRate != 0 {
		t.Errorf("one sample per %d bytes", runtime.MemProfileRate)
	}
}
