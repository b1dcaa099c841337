// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/proc"
)

const (
	// maxOutput bounds what a plugin may return: a result goes on record.
	maxOutput = 64 << 10
	// maxMessage bounds what is kept of what it writes besides, for the error.
	maxMessage = 2048
	// defaultPath is where plugins find programs, iptables for one, if this program has no PATH.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// runner runs plugins, one after the other. It is the Exec of CNI's package invoke.
type runner struct {
	*programs
	version.PluginDecoder
	timeout time.Duration
	// busy is locked, nil if there is no namespace to lock. A plugin has it too: while one runs
	// that was started by a daemon which died, nobody else starts one for the sandbox.
	busy *os.File
}

// FindInPath finds a plugin, whatever paths there are.
func (r *runner) FindInPath(plugin string, _ []string) (string, error) { return r.find(plugin) }

// arguments are the environment of a plugin, and all of it.
type arguments struct {
	command string
	of      *actual.CNI
	path    string
}

// AsEnv is the environment: nothing of this program's but where programs are.
func (a *arguments) AsEnv() []string {
	return []string{
		"CNI_COMMAND=" + a.command, "CNI_CONTAINERID=" + a.of.ContainerID, "CNI_NETNS=" + a.of.Netns, "CNI_IFNAME=" + a.of.Interface,
		"CNI_PATH=" + a.path, "PATH=" + cmp.Or(os.Getenv("PATH"), defaultPath),
	}
}

// ExecPlugin runs a plugin as the leader of a process group and returns what it wrote to its
// stdout. It is killed with its group when its time is over or it has written too much.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, fmt.Errorf("killed after %s, which is network.cni.timeout of the host policy", r.timeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout := &bounded{most: maxOutput, over: func() { stop(fmt.Errorf("killed: expected at most %d bytes of output", maxOutput)) }}
	stderr := &bounded{most: maxMessage}
	cmd := exec.Command(path)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, "/", bytes.NewReader(stdin), stdout, stderr
	if r.busy != nil {
		cmd.ExtraFiles = []*os.File{r.busy}
	}
	err := proc.RunGroup(ctx, cmd, new(proc.SandboxOOMScore))
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("plugin %s: %w%s", filepath.Base(path), context.Cause(ctx), stderr.said())
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return stdout.b, nil
	}
	var told types.Error
	if json.Unmarshal(stdout.b, &told) == nil && (told.Msg != "" || told.Details != "") {
		return nil, fmt.Errorf("plugin %s: %w", filepath.Base(path), &told)
	}
	return nil, fmt.Errorf("plugin %s: %w%s%s", filepath.Base(path), err, (&bounded{b: stdout.b[:min(len(stdout.b), maxMessage)]}).said(), stderr.said())
}

// bounded keeps the beginning of what is written, and takes all of it.
type bounded struct {
	b    []byte
	most int
	over func() // called when there is more, if set
}

// Write never fails.
func (o *bounded) Write(p []byte) (int, error) {
	if room := o.most - len(o.b); len(p) > room {
		o.b = append(o.b, p[:room]...)
		if o.over != nil {
			o.over()
		}
	} else {
		o.b = append(o.b, p...)
	}
	return len(p), nil
}

// said is what was written, for an error.
func (o *bounded) said() string {
	text := strings.TrimSpace(string(o.b))
	if text == "" {
		return ""
	}
	return fmt.Sprintf("; it wrote: %q", text)
}

// askEvery is how often the lock of a namespace is tried.
const askEvery = 20 * time.Millisecond

// lock keeps others from starting plugins for a namespace. It waits for one that a daemon has
// left behind as long as a plugin may take: an ADD that ends after the DEL would leave what
// nobody undoes. After that time it is a program that a plugin has left, and nobody waits. It
// returns nil if there is no namespace, also if the path is empty.
func lock(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	ns, err := netns.Open(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	f, err := ns.File()
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(patience); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.EWOULDBLOCK) && time.Now().After(until):
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock network namespace %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(askEvery):
		}
	}
}

// unlock lets others start plugins at once: those of this daemon have ended. To close f alone
// would keep it locked while a program that one of them has left behind has it too, and each
// CHECK and DEL would wait as long as a plugin may take.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	_ = f.Close() // nothing was written to it
}
