// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// proc is what /proc says of one.
type proc struct {
	pid, parent int
	args        []string
}

// processes lists those that can be read; others have ended meanwhile.
func processes() ([]proc, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []proc
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		stat, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Join(err1, err2) != nil {
			continue
		}
		// The name of a process, in parentheses, may have any character in it.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		f := strings.Fields(rest)
		if len(f) < 2 {
			continue
		}
		parent, err := strconv.Atoi(f[1])
		if err != nil {
			continue
		}
		out = append(out, proc{pid: pid, parent: parent, args: strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")})
	}
	return out, nil
}

// withChildren adds the descendants of some processes.
func withChildren(all []proc, of map[int]bool) map[int]bool {
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if of[p.parent] && !of[p.pid] {
				of[p.pid], grown = true, true
			}
		}
	}
	return of
}

// called are those of some processes that have one of the names, and their
// descendants: the guest's processes are children of the sentry.
func called(all []proc, of map[int]bool, names ...string) map[int]bool {
	roots := map[int]bool{}
	for _, p := range all {
		if of[p.pid] && slices.Contains(names, filepath.Base(p.args[0])) {
			roots[p.pid] = true
		}
	}
	return withChildren(all, roots)
}

// pss sums the proportional set sizes of processes, in MiB.
func pss(pids map[int]bool) (float64, error) {
	var kib int64
	for pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended, or is about to
		}
		n, err := field(string(text), "Pss:")
		if err != nil {
			return 0, err
		}
		kib += n
	}
	return float64(kib) / 1024, nil
}

// available is MemAvailable of the machine, in MiB.
func available() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	kib, err := field(string(text), "MemAvailable:")
	return float64(kib) / 1024, err
}

// field is the number after a name at the beginning of a line.
func field(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s in %.80q", name, text)
}

// cpuOf is the processor time of all threads of a process.
func cpuOf(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum), nil
}

// cpuSince is the processor time of processes and of those that were their children,
// since they were started. It counts in hundredths of a second.
func cpuSince(pids map[int]bool) (time.Duration, error) {
	var ticks int64
	for pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended, and is counted as a child
		}
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(f) < 15 {
			return 0, fmt.Errorf("/proc/%d/stat: %.80q", pid, text)
		}
		for _, v := range f[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100), nil
}
