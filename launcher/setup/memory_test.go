// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"testing"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
)

// Who reads it learns what the limit is, what took how much, and which field to change.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	small, large := MemoryFile{Data: make([]byte, 10)}, MemoryFile{Data: make([]byte, 3<<20)}
	for want, c := range map[string]struct {
		limit  int64
		policy *hostpolicy.Policy
		files  [][]MemoryFile
	}{
		"OOMKilled: its memory limit of 32Mi is too small to start it; raise resources.memory":                                                        {32 << 20, hostpolicy.Default(), nil},
		"OOMKilled: its memory limit of 33000000 is too small to start it; raise resources.memory":                                                    {33000000, hostpolicy.Default(), [][]MemoryFile{nil}},
		"OOMKilled: its memory limit of 64Mi is too small to start it; the files of its config and secret volumes take 6.0Mi; raise resources.memory": {64 << 20, hostpolicy.Default(), [][]MemoryFile{{small, large}, {large}}},
		"OOMKilled: its memory limit of 64Mi is too small to start it; raise linux.resources.memory.limit":                                            {64 << 20, nil, nil},
		"OOMKilled: the host had no memory left for the start":                                                                                        {0, hostpolicy.Default(), [][]MemoryFile{{large}}},
	} {
		st := &Setup{Policy: c.policy, Containers: []Container{{}}}
		for _, f := range c.files {
			st.App().Volumes = append(st.App().Volumes, Source{Files: f})
		}
		if got := st.OutOfMemory(c.limit).Error(); got != want {
			t.Errorf("%s\nexpected %s", got, want)
		}
	}
}

// Memory that ran out explains a start that failed, and none that was ended.
func TestMemoryFault(t *testing.T) {
	t.Parallel()
	st := &Setup{Policy: hostpolicy.Default(), Containers: []Container{{}}}
	for name, cause := range map[string]error{
		"the daemon ends": operation.ErrShutdown, "the manifest is gone": &operation.Cancelled{Reason: "ManifestRemoved"}, "ended": context.Canceled,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if err := st.MemoryFault(ctx, 0, true); err == nil {
			t.Errorf("%s: nothing is told before", name)
		}
		cancel(cause)
		if err := st.MemoryFault(ctx, 0, true); err != nil {
			t.Errorf("%s: %v is told instead", name, err)
		}
	}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := st.MemoryFault(late, 0, true); err == nil {
		t.Error("a start that took too long: nothing is told")
	}
	if err := st.MemoryFault(t.Context(), 0, false); err != nil {
		t.Errorf("nothing was killed: %v", err)
	}
}
