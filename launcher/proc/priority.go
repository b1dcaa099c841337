// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// setPolicy sets the scheduling policy of all threads of a process, and of the processes that
// it has started. A thread that is created meanwhile has that of the one that creates it, so
// that it looks again until it has found no other.
func setPolicy(pid int, policy uint32) error {
	done := map[int]bool{}
	for {
		found, err := threads(pid)
		if err != nil {
			return err
		}
		again := false
		for _, tid := range found {
			if done[tid] {
				continue
			}
			done[tid], again = true, true
			// It keeps the nice value that it has from its parent.
			attr, err := unix.SchedGetAttr(tid, 0)
			if err == nil {
				err = unix.SchedSetAttr(tid, &unix.SchedAttr{Policy: policy, Nice: attr.Nice}, 0)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set scheduling policy of process %d: %w", pid, err)
			}
		}
		if !again {
			return nil
		}
	}
}

// threads are those of a process, and of all that it has started.
func threads(pid int) ([]int, error) {
	tids, children, err := family(pid)
	if err != nil {
		return nil, err
	}
	for _, child := range children {
		more, _, err := family(child)
		if err == nil { // or it has ended
			tids = append(tids, more...)
		}
	}
	return tids, nil
}

// family are the threads of a process, and the processes that it, and they, have started.
func family(pid int) (tids, children []int, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list threads: %w", err)
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		tids = append(tids, tid)
		b, err := os.ReadFile(dir + "/" + e.Name() + "/children")
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				// A kernel without this file can't tell whom to give the processor back.
				if _, serr := os.Stat(dir + "/" + e.Name()); serr == nil {
					return nil, nil, fmt.Errorf("list children: %w", err)
				}
			}
			continue // the thread has ended
		}
		for f := range strings.FieldsSeq(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				continue
			}
			children = append(children, child)
			if _, more, err := family(child); err == nil { // or it has ended
				children = append(children, more...)
			}
		}
	}
	return tids, children, nil
}
