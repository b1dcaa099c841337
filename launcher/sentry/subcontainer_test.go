// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"os"
	"reflect"
	"testing"

	"sandboxctl.dev/launcher/wire"
)

// Processes carry the numbers of the sandbox. What is not in it is left out, and a parent from
// outside is none.
func TestRenumber(t *testing.T) {
	t.Parallel()
	list := func() []wire.Process {
		return []wire.Process{
			{PID: 1, PGID: 1, Threads: []int32{1}, Cmd: "pause"},
			{PID: 3, PGID: 3, Threads: []int32{3, 4}, Cmd: "app"},
			{PID: 5, PPID: 3, PGID: 3, Threads: []int32{5}, Cmd: "child"},
			{PID: 9, PPID: 1, PGID: 9, Threads: []int32{9}, Cmd: "command"},
			{PID: 11, PPID: 3, PGID: 3, Threads: []int32{11}, Cmd: "ended since"},
		}
	}
	want := []wire.Process{
		{PID: 1, PGID: 1, Threads: []int32{1, 2}, Cmd: "app"},
		{PID: 3, PPID: 1, PGID: 1, Threads: []int32{3}, Cmd: "child"},
		{PID: 7, PGID: 7, Threads: []int32{7}, Cmd: "command"},
	}
	if got := renumber(list(), wire.Numbers{3: 1, 4: 2, 5: 3, 9: 7}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	// The application is the first container: both are the same.
	if got := renumber(list(), nil); !reflect.DeepEqual(got, list()) {
		t.Errorf("%+v", got)
	}
}

// Trees and the files that they are mounted from come in pairs; a sentry is not asked otherwise.
func TestStartBesideTrees(t *testing.T) {
	t.Parallel()
	for _, s := range []Subcontainer{{}, {Mounts: make([]wire.MountConf, 1)}, {Mounts: make([]wire.MountConf, 1), Trees: make([]*os.File, 2)}} {
		if err := (&Control{}).Beside("x").StartBeside(t.Context(), &s); err == nil {
			t.Errorf("%d mounts of %d files", len(s.Mounts), len(s.Trees))
		}
	}
}
