// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/procfs"
	"sandboxctl.dev/launcher/wire"
)

// File is where it is written down which processes wait, in the state directory.
const File = "waiting.json"

const (
	version = 1
	// maxFile is how long the file may be.
	maxFile = 1 << 16
)

// Record is which processes wait. One that a sandbox has taken since is on that one's
// record too: IsWaiting tells.
type Record struct {
	Version   int                `json:"version"`
	Processes []process.Identity `json:"processes"`
	// Ready is how many pairs of them are kept for claims of each SandboxPool.
	Ready map[string]int `json:"ready,omitempty"`
}

// write replaces the record; without processes it removes it. It need not survive a power
// cut, which no process does.
func write(dir *os.File, ids []process.Identity, ready map[string]int) error {
	return crashpoint.Do(crashpoint.WaitingRecord, func() error {
		in := atomicfile.In{Dir: fsys.Of(dir)}
		if len(ids) == 0 {
			return in.Remove(File)
		}
		b, err := json.Marshal(Record{version, ids, ready})
		if err != nil {
			return fmt.Errorf("encode %s: %w", File, err)
		}
		return in.Publish(File, append(b, '\n'), 0o600)
	})
}

// Read reads which processes wait, nil if none were written down.
func Read(dir *os.File) ([]process.Identity, error) {
	r, err := read(dir)
	return r.Processes, err
}

// Ready is how many of the processes of a state directory that wait are kept for claims of which
// pool. A start may have taken some of them since they were written down.
func Ready(dir *os.File, state string) (map[string]int, error) {
	r, err := read(dir)
	if err != nil || len(r.Ready) == 0 || Count(r.Processes, state) == 0 {
		return nil, err
	}
	return r.Ready, nil
}

func read(dir *os.File) (r Record, err error) {
	f, err := untrusted.OpenRegular(int(dir.Fd()), File)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("open %s: %w", File, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return r, fmt.Errorf("read %s: %w", File, err)
	}
	return decode(b)
}

func decode(b []byte) (r Record, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("read %s: %w", File, err)
	}
	if len(b) > maxFile || r.Version != version {
		return Record{}, fmt.Errorf("read %s: it has version %d, expected %d", File, r.Version, version)
	}
	for _, id := range r.Processes {
		if id.PID <= 1 {
			return Record{}, fmt.Errorf("read %s: %d is not the number of a process", File, id.PID)
		}
	}
	return r, nil
}

// IsWaiting says whether a command line is that of a process that waits for a sandbox of a
// state directory.
func IsWaiting(cmdline []byte, state string) bool {
	args := bytes.SplitN(cmdline, []byte{0}, 4)
	return len(args) == 4 && string(args[0]) == wire.WaitingName && string(args[2]) == state
}

// Count is how many of these processes wait. A start may have taken some of them since they
// were written down.
func Count(ids []process.Identity, state string) (n int) {
	for i := range ids {
		if is, _ := process.LivenessOf(&ids[i]); is != process.Alive {
			continue
		}
		if cmdline, err := procfs.Read(ids[i].PID, "cmdline"); err == nil && IsWaiting(cmdline, state) {
			n++
		}
	}
	return n
}

// sweep ends the processes that a daemon before has left waiting. They leave by themselves:
// this is for those that are stopped or slow. One that has become a sandbox's is not called
// so any more, and is left to the record of that; as is one whose record can't be read.
func sweep(ctx context.Context, dir *os.File, state string, timeout time.Duration) error {
	ids, err := Read(dir)
	if err != nil {
		// Damaged: what is in it would have left by now, and nothing of it is acted on.
		return errors.Join(err, write(dir, nil, nil))
	}
	var errs []error
	for i := range ids {
		errs = append(errs, end(ctx, &ids[i], state, timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(ids) == 0 {
		return nil
	}
	return write(dir, nil, nil)
}

// endMembers ends the processes of a group that wait. What they have started leaves with them.
// Any other is not touched: a start that has taken one may have been cut short in its group,
// and what runs of a sandbox is for its record to judge.
func endMembers(ctx context.Context, group *cgroup.Group, state string, timeout time.Duration) error {
	pids, err := group.PIDs()
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		id, err := identify(pid)
		if err == nil && id != nil {
			err = end(ctx, id, state, timeout)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// identify is the process that has a number now, nil if there is none.
func identify(pid int) (*process.Identity, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	id, err := process.Identify(fd, pid)
	if err != nil {
		return nil, procfs.UnlessEnded(err)
	}
	return &id, nil
}

// end ends a process if it waits.
func end(ctx context.Context, id *process.Identity, state string, timeout time.Duration) error {
	p, err := process.Open(*id)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: waiting process (pid %d): %w", process.ErrUnknownProcess, id.PID, err)
	}
	defer p.Close()
	// The handle is older: what is read is of this process, or it has ended.
	cmdline, err := procfs.Read(id.PID, "cmdline")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	if !IsWaiting(cmdline, state) {
		return nil
	}
	return proc.Kill(ctx, &proc.Target{What: "waiting process", ID: id, Timeout: timeout})
}
