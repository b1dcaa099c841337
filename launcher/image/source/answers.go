// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// leastBytes must come in each stallTime: 1 KiB in a second.
const leastBytes = 60 << 10

// stalling ends a download that stands still, or gives a byte now and then: a registry
// must not hold a pull for ever.
type stalling struct {
	io.ReadCloser
	timer *time.Timer
	once  sync.Once
	came  int // since the timer was set
}

var errStalled = fmt.Sprintf("less than %d KiB arrived within %v", leastBytes>>10, stallTime)

func guardStall(body io.ReadCloser) io.ReadCloser {
	s := &stalling{ReadCloser: body}
	// To close the body ends a read that waits.
	s.timer = time.AfterFunc(stallTime, s.shut)
	return s
}

func (s *stalling) shut() { s.once.Do(func() { s.ReadCloser.Close() }) }

// Read implements io.Reader.
func (s *stalling) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	switch {
	case err == nil:
		if s.came += n; s.came >= leastBytes {
			s.came = 0
			s.timer.Reset(stallTime)
		}
	case errors.Is(err, io.EOF), errors.Is(err, context.Canceled):
	case !s.timer.Stop():
		err = fmt.Errorf("%w: %s", ErrUnreachable, errStalled)
	default:
		err = fmt.Errorf("%w: the connection broke: %w", ErrUnreachable, err)
	}
	return n, err
}

// Close implements io.Closer.
func (s *stalling) Close() error {
	s.timer.Stop()
	s.shut()
	return nil
}

// asked is in the context of a request for something of a repository, and has its address
// without the scheme: the transport finds out whether a registry on loopback has TLS.
type asked struct{}

// want makes the context of a request.
func want(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, asked{}, address)
}

// ofRepository says whether a request is for something of a repository, also where that leads
// to. All others are the transport's own: it asks whether there is a registry, and for
// tokens, and reads whatever comes.
func ofRepository(r *http.Request) bool {
	address, ok := r.Context().Value(asked{}).(string)
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	return ok && r.URL.Host+r.URL.RequestURI() == address
}

// mostAnswer bounds what else a registry says.
const mostAnswer = 1 << 20

var errAnswer = fmt.Errorf("%w: its answer has more than %d KiB, or takes longer than %v", ErrUnreachable, mostAnswer>>10, answerTime)

// brief is an answer of which not more is read than there should be.
type brief struct {
	io.ReadCloser
	left  int
	timer *time.Timer
	once  sync.Once
}

func bounded(body io.ReadCloser) io.ReadCloser {
	b := &brief{ReadCloser: body, left: mostAnswer}
	b.timer = time.AfterFunc(answerTime, b.shut)
	return b
}

func (b *brief) shut() { b.once.Do(func() { b.ReadCloser.Close() }) }

// Read implements io.Reader.
func (b *brief) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		b.shut()
		return 0, errAnswer
	}
	if err != nil && !errors.Is(err, io.EOF) && !b.timer.Stop() {
		err = errAnswer
	}
	return n, err
}

// Close implements io.Closer.
func (b *brief) Close() error {
	b.timer.Stop()
	b.shut()
	return nil
}
