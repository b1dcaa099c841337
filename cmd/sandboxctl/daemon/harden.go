// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// daemonOOMScore is how much the host's kernel spares the daemon when it runs
// out of memory. Sandboxes have launcher.SandboxOOMScore: they can be started
// again, but not without a daemon.
const daemonOOMScore = -900

// daemonUmask is that of the daemon and of the hooks it runs, whatever it was
// started with: others may never write what is made without a mode.
const daemonUmask = 0o022

// harden keeps what is in the daemon's memory out of core dumps, and the
// daemon alive when memory is short.
func harden(log *slog.Logger) error {
	unix.Umask(daemonUmask)
	// A dump would hold the environment of every sandbox. The limit alone does
	// not count where core_pattern is a pipe.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	err := lowerOOMScore("/proc/self/oom_score_adj", daemonOOMScore)
	if errors.Is(err, fs.ErrPermission) {
		// Without CAP_SYS_RESOURCE, as in a container. It works all the same.
		log.Info("could not lower the daemon's OOM score (needs CAP_SYS_RESOURCE); under memory pressure it may be killed like any process", "err", err)
		return nil
	}
	return err
}

// lowerOOMScore sets a score unless there is a lower one: the service manager's.
func lowerOOMScore(file string, adj int) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read OOM score: %w", err)
	}
	old, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("read OOM score: %w", err)
	}
	if old <= adj {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set OOM score: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(adj))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set OOM score: %w", err)
	}
	return nil
}
