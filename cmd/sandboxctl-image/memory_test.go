// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// takeMemory takes memory without an end, as what parses an image might if it had a
// fault. It is not written to: the machine of the test has less than the bound.
func takeMemory() int {
	if err := boundMemory(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	if len(os.Args) > 1 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args[0] = "takes memory"
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if cmd.Run() != nil {
			return 2
		}
		return 0
	}
	var all [][]byte
	for n := uint64(0); n <= hardMemory; n += 16 << 20 {
		all = append(all, make([]byte, 16<<20))
		fmt.Println(n >> 20)
	}
	fmt.Println(len(all), "and more")
	return 0
}

// A pull that takes ever more memory ends at its bound, whatever it has it for, and so do
// the programs that it starts.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	for name, cmd := range map[string]*exec.Cmd{
		"itself":    exec.Command("/proc/self/exe"),
		"a program": exec.Command("/proc/self/exe", "starts"),
	} {
		cmd.Args[0] = "takes memory"
		var says strings.Builder
		cmd.Stderr = &says
		out, err := cmd.Output()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var took uint64
		// The race detector takes several times as much, and ends in its own way.
		races := strings.Contains(says.String(), "ThreadSanitizer failed to allocate")
		if _, serr := fmt.Sscan(lines[len(lines)-1], &took); err == nil || took >= hardMemory>>20 || !races && (serr != nil || took < softMemory>>20) {
			t.Errorf("%s: %d MiB were taken: %v, %v", name, took, err, serr)
		}
		if !races && !strings.Contains(says.String(), "out of memory") {
			t.Errorf("%s: %.300s", name, &says)
		}
	}
}
