// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/sentry"
)

// Restore has a sentry that has started nothing go on from the state, and runs the command of the
// manifest for that. When the sentry can't, that is written into the record.
func (s *Saved) Restore(ctx context.Context, rec *actual.Record, c *sentry.Control) error {
	// A restore keeps its worker: when a host has been started, as many as there are workers read
	// and load at once, and each is done in time. More would make each other fail. One that takes
	// longer than its size explains keeps nobody waiting.
	stop := operation.WaitsAfter(ctx, time.Minute+s.Image.Timeout())
	err := crashpoint.Do(crashpoint.Restore, func() error { return c.Restore(ctx, s.State) })
	stop()
	if err != nil {
		// Also when it took too long. The end of the daemon, or of the reason for the start, says
		// nothing about it.
		if r := rec.App().Resumption; r != nil && !operation.Shutdown(ctx) && operation.CancelReason(ctx) == "" {
			rec.App().Resumption = r.Fails(untrusted.Line(err.Error(), 500))
		}
		return err
	}
	if s.hook == nil {
		return nil
	}
	operation.Waits(ctx) // the author decides how long
	if err := crashpoint.Do(crashpoint.OnRestore, func() error { return s.runHook(ctx, rec) }); err != nil {
		return fmt.Errorf("spec.snapshot.onRestore: %w", err)
	}
	rec.App().Resumption = rec.App().Resumption.Ready()
	return nil
}

// errHook is another end of the command than exit code 0.
var errHook = errors.New("the command did not end with the exit code 0")

// runHook runs the command in the sandbox, as the application was started, and waits for its end.
// What it has started beside and what still runs stays.
func (s *Saved) runHook(ctx context.Context, rec *actual.Record) error {
	timeout := time.Duration(*s.hook.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it has not ended after %s (timeout)", timeout))
	defer cancel()
	// A restore has the sentry close the connections that there were, some time later.
	c, err := sentry.ConnectTo(ctx, s.store, rec)
	if err != nil {
		return err
	}
	defer c.Close()
	args, private, err := built.Exec(s.store, rec, s.hook.Exec)
	if err == nil && private {
		args.Envv, err = c.Environment(ctx)
	}
	if err != nil {
		return err
	}
	args.StdioIsPty = false // its application may have a terminal
	streams, err := newStreams()
	if err != nil {
		return err
	}
	defer streams.close()
	pid, err := c.App().Execute(ctx, args, streams.stdin, streams.output, streams.output)
	streams.sent()
	if err != nil {
		return c.App().ExplainCommand(ctx, err)
	}
	status, err := c.App().WaitPID(ctx, pid)
	switch {
	case err != nil:
	case status.Signaled():
		err = fmt.Errorf("%w: signal %d has ended it", errHook, status.Signal())
	case status.ExitStatus() != 0:
		err = fmt.Errorf("%w: it is %d", errHook, status.ExitStatus())
	}
	if err != nil {
		if words := streams.said(); words != "" {
			err = fmt.Errorf("%w; it wrote: %s", err, words)
		}
	}
	return err
}

// streams are those of the command: nothing to read, and the end of what it writes is kept.
type streams struct {
	stdin, output, reader *os.File
	last                  chan []byte
}

// lastWords is how much of what the command writes is kept.
const lastWords = 1000

func newStreams() (*streams, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	r, w, err := pipe()
	if err != nil {
		return nil, errors.Join(err, null.Close())
	}
	s := &streams{stdin: null, output: w, reader: r, last: make(chan []byte, 1)}
	go func() {
		// A guest may write as much as it likes, and must not wait for us.
		var kept []byte
		b := make([]byte, 32<<10)
		for {
			n, err := r.Read(b)
			kept = append(kept, b[:n]...)
			kept = kept[max(0, len(kept)-lastWords):]
			if err != nil {
				s.last <- kept
				return
			}
		}
	}()
	return s, nil
}

// sent closes what the sentry has copies of.
func (s *streams) sent() {
	s.stdin.Close()
	s.output.Close()
}

// said is what the command wrote last. It is called once.
func (s *streams) said() string {
	// What it has left behind may write on: what is there in a moment is enough.
	if err := s.reader.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		s.reader.Close()
	}
	return untrusted.Line(string(<-s.last), lastWords)
}

// close ends the reader: what still writes gets EPIPE.
func (s *streams) close() {
	s.sent()
	s.reader.Close()
}
