// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/guest"
)

// startHooksPipe, in a sandbox's directory, ends when its startContainer hooks
// have run and its application has taken their place. What comes before the end
// is why it has not. It has a name because the process that creates a container
// is not the one that starts it.
const startHooksPipe = "starthooks"

// maxStartHooksReport bounds what the sandbox can say there, in bytes.
const maxStartHooksReport = 4096

// addStartHooks takes the startContainer hooks of a bundle.
func (st *setup) addStartHooks(cfg *specs.Spec, bundle string) error {
	if cfg.Hooks == nil || len(cfg.Hooks.StartContainer) == 0 {
		return nil
	}
	for i := range cfg.Hooks.StartContainer {
		if err := guest.Check(&cfg.Hooks.StartContainer[i]); err != nil {
			return fmt.Errorf("hooks.startContainer[%d].%w", i, err)
		}
	}
	st.startHooks = &bundleHooks{Bundle: bundle, Hooks: &specs.Hooks{StartContainer: cfg.Hooks.StartContainer}, Annotations: cfg.Annotations}
	return nil
}

// startTimeout is how long the hooks of a start may take.
func (st *setup) startTimeout() (d time.Duration) {
	if st.startHooks != nil {
		for i := range st.startHooks.Hooks.StartContainer {
			d += guest.Timeout(&st.startHooks.Hooks.StartContainer[i])
		}
	}
	return d
}

// guestSpec returns a copy of the spec for the sentry and its further arguments. With
// hooks, the first program of the sandbox is this one, from a descriptor; it
// becomes the application, which has no access to it or to the pipe then.
func (l *Launcher) guestSpec(st *setup, name string, dir, guestFD int, d *donation) (*specs.Spec, []string, error) {
	spec := *st.spec
	if st.startHooks == nil {
		return &spec, nil, nil
	}
	argv, err := guest.Argv(&guest.Config{
		ReportFD: guestFD,
		Hooks:    st.startHooks.Hooks.StartContainer,
		State:    st.startHooks.state(name, specs.StateCreated, 1),
	}, st.spec.Process.Args)
	if err != nil {
		return nil, nil, err
	}
	w, err := makeStartHooksPipe(dir)
	if err != nil {
		return nil, nil, err
	}
	reportFD := d.give(w)
	self, err := os.Open(l.opts.GoferPath)
	if err != nil {
		return nil, nil, fmt.Errorf("open own program: %w", err)
	}
	execFD := d.give(self)
	p := *st.spec.Process
	p.Args, spec.Process = argv, &p
	return &spec, []string{flagInt("exec-fd", execFD), fmt.Sprintf("--pass-fd=%d:%d", reportFD, guestFD)}, nil
}

// makeStartHooksPipe returns the write end.
func makeStartHooksPipe(dir int) (*os.File, error) {
	if err := unix.Unlinkat(dir, startHooksPipe, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old pipe of startContainer hooks: %w", err)
	}
	if err := unix.Mkfifoat(dir, startHooksPipe, 0o600); err != nil {
		return nil, fmt.Errorf("create pipe of startContainer hooks: %w", err)
	}
	// It opens for writing only while somebody reads.
	r, err := openStartHooksPipe(dir, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return openStartHooksPipe(dir, unix.O_WRONLY)
}

func openStartHooksPipe(dir, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, startHooksPipe, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe of startContainer hooks: %w", err)
	}
	return os.NewFile(uintptr(fd), startHooksPipe), nil
}

// openStartHooks returns the read end, nil if there are no hooks.
func (l *Launcher) openStartHooks(name string, st *setup) (*os.File, error) {
	if st.startHooks == nil {
		return nil, nil
	}
	dir, err := l.store.Dir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return openStartHooksPipe(int(dir.Fd()), unix.O_RDONLY)
}

// waitStartHooks waits until the application runs. It fails with the words of
// the sandbox if it does not.
func waitStartHooks(ctx context.Context, r *os.File) error {
	var said strings.Builder
	buf := make([]byte, maxStartHooksReport)
	for said.Len() < maxStartHooksReport {
		fds := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
		if err := pollContext(ctx, fds); err != nil {
			return fmt.Errorf("wait for startContainer hooks: %w", err)
		}
		n, err := r.Read(buf[:maxStartHooksReport-said.Len()])
		said.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read from startContainer hooks: %w", err)
		}
	}
	switch why, passed := strings.CutPrefix(said.String(), guest.Passed); {
	case why != "":
		return errors.New(printable(why, maxStartHooksReport))
	case !passed:
		return errors.New("the sandbox ended before its startContainer hooks had run")
	}
	return nil
}
