// SPDX-License-Identifier: Apache-2.0

package appstart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/guest"
	"sandboxctl.dev/launcher/pidone"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// startReport, a pipe in a sandbox's directory, is written by the program that
// starts the application in the sandbox, if there is one: the init process, or the
// one that runs the startContainer hooks. It ends when the application runs. It has
// a name because the process that creates a container is not the one that starts it,
// and a daemon may finish what another one began.
const startReport = "startreport"

// maxStartReport bounds what the sandbox can say there, in bytes.
const maxStartReport = 4096

// ErrNotReported says that the report ended before it said anything.
var ErrNotReported = errors.New("the sandbox ended before its application was started")

// Spec returns a copy of the spec for the sentry and its further arguments. With
// hooks or an init process, the first program of the sandbox is not the application
// but one that the sentry is given as a descriptor.
func Spec(st *setup.Setup, name string, dir, guestFD int, d *proc.Donation) (*specs.Spec, []string, error) {
	spec := *st.App().Spec
	spec.Process = st.Process()
	if !st.Reports() {
		if st.App().Init == actual.InitOwn {
			// gVisor compares it with that of the checkpoint.
			spec.Process = setup.WithInit(st.Process())
		}
		return &spec, nil, nil
	}
	r, w, err := makeStartReport(dir)
	if err != nil {
		return nil, nil, err
	}
	reportFD := d.Give(w)
	var execFD int
	if st.App().StartHooks != nil {
		if err = r.Close(); err == nil {
			execFD, spec.Process, err = giveStartHooks(st, name, guestFD, d)
		}
	} else {
		// The sentry reads nothing there. It keeps the report for a launcher that comes
		// after this one has died: a pipe without a reader takes nothing.
		d.Give(r)
		guestFD = pidone.ReportFD
		execFD, spec.Process, err = giveInit(st.Process(), d)
	}
	if err != nil {
		return nil, nil, err
	}
	return &spec, []string{fmt.Sprintf("--exec-fd=%d", execFD), fmt.Sprintf("--pass-fd=%d:%d", reportFD, guestFD)}, nil
}

// makeStartReport returns both ends.
func makeStartReport(dir int) (r, w *os.File, err error) {
	if err := unix.Unlinkat(dir, startReport, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, fmt.Errorf("remove old pipe for the report of the start: %w", err)
	}
	if err := unix.Mkfifoat(dir, startReport, 0o600); err != nil {
		return nil, nil, fmt.Errorf("create pipe for the report of the start: %w", err)
	}
	// It opens for writing only while somebody reads.
	if r, err = openStartReportIn(dir, unix.O_RDONLY); err != nil {
		return nil, nil, err
	}
	if w, err = openStartReportIn(dir, unix.O_WRONLY); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return r, w, nil
}

func openStartReportIn(dir, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, startReport, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe for the report of the start: %w", err)
	}
	return os.NewFile(uintptr(fd), startReport), nil
}

// Open returns the read end, nil if nobody reports.
func Open(store *actual.Store, name string, st *setup.Setup) (*os.File, error) {
	if !st.Reports() {
		return nil, nil
	}
	dir, err := store.Dir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return openStartReportIn(int(dir.Fd()), unix.O_RDONLY)
}

// Wait waits until the application runs. It fails with the words of the sandbox
// if it does not.
func Wait(ctx context.Context, st *setup.Setup, r *os.File) error {
	if st.App().StartHooks != nil {
		text, err := readReport(ctx, r)
		if err != nil {
			return err
		}
		switch why, passed := strings.CutPrefix(text, guest.Passed); {
		case why != "":
			return errors.New(untrusted.Line(why, maxStartReport))
		case !passed:
			return errors.New("the sandbox ended before its startContainer hooks had run")
		}
		return nil
	}
	failure, ok, err := initReport(ctx, r)
	switch {
	case err != nil:
		return err
	case !ok:
		return ErrNotReported
	case failure != nil:
		return initFailure(failure, st.Process())
	}
	return nil
}

// Failed says whether the init process of a sandbox has reported that it can't
// execute the application. It waits until it has tried.
func Failed(ctx context.Context, store *actual.Store, rec *actual.Record) (bool, error) {
	if rec.App().Init != actual.InitOwn {
		return false, nil
	}
	dir, err := store.Dir(rec.Name)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	r, err := openStartReportIn(int(dir.Fd()), unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) {
		return false, nil // restored from a checkpoint: it runs
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	failure, _, err := initReport(ctx, r)
	return failure != nil, err
}

// initReport waits for the report of an init process; ok is false if there is none
// any more. A failure stays in the pipe: this launcher may die before it is on record.
func initReport(ctx context.Context, r *os.File) (failure *pidone.Failure, ok bool, err error) {
	copied, w, err := proc.Pipe()
	if err != nil {
		return nil, false, err
	}
	defer copied.Close()
	defer w.Close()
	for {
		n, err := unix.Tee(int(r.Fd()), int(w.Fd()), maxStartReport, unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = proc.Poll(ctx, []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}})
		case errors.Is(err, unix.EINTR):
			err = context.Cause(ctx)
		case err == nil && n == 0:
			return nil, false, nil
		case err == nil:
			b := make([]byte, n)
			if _, err = io.ReadFull(copied, b); err == nil {
				if failure, ok = pidone.ReadReport(b); failure == nil {
					_, err = r.Read(b)
				}
			}
			return failure, ok, err
		}
		if err != nil {
			return nil, false, fmt.Errorf("wait for the start of the application: %w", err)
		}
	}
}

// readReport reads to the end of the pipe.
func readReport(ctx context.Context, r *os.File) (string, error) {
	var text strings.Builder
	buf := make([]byte, maxStartReport)
	for text.Len() < maxStartReport {
		fds := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
		if err := proc.Poll(ctx, fds); err != nil {
			return "", fmt.Errorf("wait for the start of the application: %w", err)
		}
		n, err := r.Read(buf[:maxStartReport-text.Len()])
		text.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("wait for the start of the application: %w", err)
		}
	}
	return text.String(), nil
}
