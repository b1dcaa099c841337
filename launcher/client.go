// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer/sandboxlog"
)

// Connect returns a control connection to the sandbox of a name, for a verb of
// the CLI. It takes no lock and needs no daemon. It fails with ErrNotRunning
// if the record's sentry is not alive, and never talks to another process than
// that one.
func Connect(ctx context.Context, store *actual.Store, name string) (*Control, *actual.Record, error) {
	rec, held, err := store.Get(name)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("load record of %s: %w", name, err)
	case held != nil:
		return nil, nil, fmt.Errorf("load record of %s: %s: %s; see `sandboxctl describe %s`", name, held.Reason, held.Message, name)
	case rec == nil:
		return nil, nil, fmt.Errorf("connect to %s: no such sandbox", name)
	}
	c, err := connect(ctx, store, rec)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return c, rec, nil
}

func (l *Launcher) connect(ctx context.Context, rec *actual.Record) (*Control, error) {
	return connect(ctx, l.store, rec)
}

func connect(ctx context.Context, store *actual.Store, rec *actual.Record) (*Control, error) {
	live, err := Liveness(rec.Sentry)
	if live != actual.Alive {
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknownProcess, err)
		}
		return nil, ErrNotRunning
	}
	dir, err := store.Dir(rec.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c, err := dialControl(ctx, int(dir.Fd()), rec.Name)
	if err != nil {
		return nil, err
	}
	pid, err := c.PeerPID()
	if err == nil && pid != rec.Sentry.PID {
		err = fmt.Errorf("control socket is served by pid %d, the sentry is pid %d", pid, rec.Sentry.PID)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.init = rec.Init == actual.InitOwn
	return c, nil
}

// logLine is how gVisor logs what goes on: level, month and day.
var logLine = regexp.MustCompile(`^[DIW][01][0-9][0-3][0-9] `)

// lastWords is the last line of a log file that is worth quoting, without time
// and stream if it has them. What is logged in passing is not: the reason why a
// process ends is written without a level.
func lastWords(tail string) string {
	var last string
	for line := range strings.SplitSeq(tail, "\n") {
		if e, err := sandboxlog.Parse([]byte(line)); err == nil {
			line = string(e.Text)
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return untrusted.Line(line, 300) // and not the end of its stack trace
		}
		if line != "" && !logLine.MatchString(line) {
			last = line
		}
	}
	return untrusted.Line(last, 300)
}
