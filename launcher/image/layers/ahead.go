// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"io"
	"sync"
)

// Sizes of reading ahead: two megabytes at most are on their way.
const (
	aheadSize  = 256 << 10
	aheadCount = 8
)

// ahead reads in a goroutine of its own, and has another one see what was read.
type ahead struct {
	// Buffers go from free to read, to full when they were seen, and back.
	free, read, full chan []byte
	stop             chan struct{}
	once             sync.Once
	done             chan struct{}
	err              error // of the reader, once full is closed

	current, rest []byte
}

// readAhead begins to read. The reader is used by nobody else until Close has returned, nor
// is what see has, unless the end was read.
func readAhead(r io.Reader, see func([]byte)) *ahead {
	a := &ahead{
		free: make(chan []byte, aheadCount), read: make(chan []byte, aheadCount), full: make(chan []byte, aheadCount),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for range aheadCount {
		a.free <- make([]byte, aheadSize)
	}
	go a.run(r)
	go func() {
		defer close(a.done)
		defer close(a.full)
		for b := range a.read {
			see(b)
			a.full <- b
		}
	}()
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.read)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		b = b[:aheadSize]
		n := 0
		for n < len(b) && a.err == nil {
			var m int
			m, a.err = r.Read(b[n:])
			n += m
		}
		// There is room for as many as there are.
		a.read <- b[:n]
		if a.err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.current != nil {
			a.free <- a.current
			a.current = nil
		}
		b, ok := <-a.full
		switch {
		case !ok && a.err == nil:
			return 0, io.ErrClosedPipe
		case !ok:
			return 0, a.err
		}
		a.current, a.rest = b, b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends the reading, and waits for a read that is under way.
func (a *ahead) Close() error {
	a.once.Do(func() { close(a.stop) })
	<-a.done
	return nil
}
