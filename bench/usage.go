// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a command took.
type usage struct {
	wall, cpu time.Duration
	memory    float64 // resident at most, of one of its processes, in MiB
}

// usageRows are the rows of a command.
type usageRows struct{ wall, cpu, memory *row }

// mostPullMemory is what a pull or an import may take, in MiB.
const mostPullMemory = 64

// usageRows adds the rows of a command, whose time is compared with that of another program.
func (b *bench) usageRows(id, what string, goal float64, base string) usageRows {
	r := usageRows{
		b.alone(id, what, "ms", goal), b.alone(id+"-cpu", "the same, processor time", "ms", 0),
		b.alone(id+"-memory", "the same, peak resident memory", "MiB", mostPullMemory),
	}
	r.wall.Base, r.cpu.Base = base, base
	return r
}

func (r usageRows) add(subject string, u usage) {
	r.wall.add(subject, milliseconds(u.wall))
	r.cpu.add(subject, milliseconds(u.cpu))
	r.memory.add(subject, u.memory)
}

// usageTask is one measurement of a round.
type usageTask struct {
	rows    usageRows
	subject string
	run     func() (usage, error)
}

// measured runs a command. If sync is a directory, the time includes that its file system
// is written to the disk.
func measured(cmd *exec.Cmd, sync string) (u usage, err error) {
	// The peak of a child is at least that of its parent: until it executes the program, it
	// has the memory of this process.
	debug.FreeOSMemory()
	if _, err := peak(os.Getpid()); err != nil {
		return u, err
	}
	u.wall, err = timed(cmd)
	if err != nil {
		return u, err
	}
	if sync != "" {
		began := time.Now()
		err = syncDisk(sync)
		u.wall += time.Since(began)
	}
	used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return u, errors.New("the system does not say what a process has used")
	}
	u.cpu, u.memory = cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), float64(used.Maxrss)/1024
	return u, err
}

// peak begins to measure the peak of a process's resident memory, and returns what it has.
func peak(pid int) (mib float64, err error) {
	// 5 sets the peak to what is resident now.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	kib, err := field(string(text), "VmRSS:")
	return float64(kib) / 1024, err
}

// syncDisk writes the file system of a directory to its disk.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
