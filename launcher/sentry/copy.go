// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/wire"
)

// Copy is a copy of files that is under way. Its tar is read or written, and then Finish
// is called.
type Copy struct {
	*wire.FrameReader // of CopyOut
	*wire.FrameWriter // of CopyIn
	conn              *net.UnixConn
	ctx               context.Context
	stop              func() bool
	stalled           time.Duration
}

// copyStalled is how long nothing may be read or written: a file system that the guest
// serves itself may never answer.
const copyStalled = time.Minute

// CopyOut reads a file or directory of the sandbox as a tar. What it says is the
// sandbox's, and not to be trusted.
func (c *Control) CopyOut(ctx context.Context, path string, follow bool) (*Copy, error) {
	p, err := c.openCopy(ctx, wire.CopyOut(path, follow))
	if err != nil {
		return nil, err
	}
	p.FrameReader = wire.NewFrameReader(&patient{p})
	return p, nil
}

// CopyIn writes files of a tar into the sandbox.
func (c *Control) CopyIn(ctx context.Context, path string, into bool) (*Copy, error) {
	p, err := c.openCopy(ctx, wire.CopyIn(path, into))
	if err != nil {
		return nil, err
	}
	p.FrameWriter = wire.NewFrameWriter(&patient{p})
	return p, nil
}

func (c *Control) openCopy(ctx context.Context, args wire.SessionArgs) (*Copy, error) {
	conn, err := c.openSink(ctx, args)
	if err != nil {
		return nil, err
	}
	return &Copy{conn: conn, ctx: ctx, stop: context.AfterFunc(ctx, func() { _ = conn.Close() }), stalled: copyStalled}, nil
}

// maxBehind bounds what a sentry may send behind the end of a tar: one that was taken over
// would keep its client for ever.
const maxBehind = 1 << 20

// Finish ends the copy, and returns how the sentry says that it went.
func (p *Copy) Finish() (*wire.CopyResult, error) {
	if p.FrameWriter != nil {
		// One that failed has ended its side, and says why.
		_ = p.End(nil)
		p.FrameReader = wire.NewFrameReader(&patient{p})
	}
	// A tar has some zeros behind its end.
	if n, err := io.CopyN(io.Discard, p.FrameReader, maxBehind+1); err == nil {
		return nil, fmt.Errorf("the sandbox sends more than %d bytes behind the end", n-1)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	r, err := wire.ReadResult(&patient{p})
	if err != nil {
		return nil, err
	}
	if r.Error != "" {
		return r, errors.New(untrusted.Line(r.Error, 2000))
	}
	return r, nil
}

// Close ends the copy, at any time.
func (p *Copy) Close() error {
	p.stop()
	return p.conn.Close()
}

// patient reads and writes with an end to each wait.
type patient struct{ *Copy }

func (p *patient) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.stalled)); err != nil {
		return 0, p.explain(err)
	}
	n, err := p.conn.Read(b)
	return n, p.explain(err)
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.stalled)); err != nil {
		return 0, p.explain(err)
	}
	n, err := p.conn.Write(b)
	return n, p.explain(err)
}

func (p *patient) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("nothing has come or gone for %s: %w", p.stalled, err)
	}
	return err
}
