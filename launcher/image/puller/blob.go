// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"sandboxctl.dev/launcher/image/source"
)

// blob is a layer that is being fetched, and may be read meanwhile.
type blob struct {
	layer  source.Layer
	report *reporter
	begun  chan struct{} // it has a file
	ended  chan struct{} // it is complete, or there is err

	mu sync.Mutex
	// changed tells readers that more of it is there, or nothing more will be.
	changed *sync.Cond
	// have is how much of it is in the file, told how much of it was reported.
	have, told int64
	// restarts is how often it was begun again: what was read before is worth nothing.
	restarts int
	// compared says that it becomes complete only if its digest is right.
	compared bool
	over     bool
	err      error
}

func newBlob(f *fetcher, l source.Layer) *blob {
	b := &blob{layer: l, report: f.report, begun: make(chan struct{}), ended: make(chan struct{})}
	b.changed = sync.NewCond(&b.mu)
	b.told = f.kept(b)
	return b
}

// hex is the digest without what all have.
func (b *blob) hex() string { return strings.TrimPrefix(b.layer.Digest, "sha256:") }

// begin says that there is a file of it.
func (b *blob) begin(compared bool) {
	b.compared = compared
	close(b.begun)
}

// grow says how much of it is there.
func (b *blob) grow(have int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(have)
}

func (b *blob) set(have int64) {
	b.have = have
	b.report.fetchedMore(have - b.told)
	b.told = have
	b.changed.Broadcast()
}

// restart says that what is there is not what it should be. It comes before the file changes.
func (b *blob) restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.restarts++
	b.set(0)
}

// end says that nothing more comes.
func (b *blob) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over, b.err = true, err
	b.changed.Broadcast()
	close(b.ended)
}

// errRestarted says that what was read of a layer was not what it should be.
var errRestarted = errors.New("the layer was fetched again while it was read")

// blobReader reads a layer from its start, as it comes. It ends when the layer is complete.
type blobReader struct {
	*blob
	ctx      context.Context // ends it
	file     *os.File
	at       int64
	restarts int
	stop     func() bool
}

// read opens it for reading.
func (f *fetcher) read(ctx context.Context, b *blob) (*blobReader, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-b.begun:
	case <-b.ended:
		// It may have begun too: what became of it decides.
		if b.err != nil {
			return nil, b.err
		}
	}
	b.mu.Lock()
	restarts := b.restarts
	b.mu.Unlock()
	file, err := f.open(b)
	if err != nil {
		return nil, err
	}
	wake := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changed.Broadcast()
	}
	return &blobReader{blob: b, ctx: ctx, file: file, restarts: restarts, stop: context.AfterFunc(ctx, wake)}, nil
}

// Close implements io.Closer.
func (r *blobReader) Close() error {
	r.stop()
	return r.file.Close()
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	have, err := r.wait()
	if err != nil {
		return 0, err
	}
	n, err := r.file.ReadAt(p[:min(int64(len(p)), have-r.at)], r.at)
	// What was read while it was begun again may be of either.
	if _, again := r.wait(); errors.Is(again, errRestarted) {
		return 0, again
	}
	r.at += int64(n)
	if err != nil {
		err = fmt.Errorf("read what was fetched: %w", err)
	}
	return n, err
}

// wait waits until there is more than was read, and returns how much there is.
func (r *blobReader) wait() (have int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.blob.restarts == r.restarts && r.have == r.at && !r.over && r.ctx.Err() == nil {
		r.changed.Wait()
	}
	switch {
	case r.ctx.Err() != nil:
		return 0, context.Cause(r.ctx)
	case r.blob.restarts != r.restarts:
		return 0, errRestarted
	case r.have > r.at:
		return r.have, nil
	case r.err != nil:
		return 0, r.err
	}
	return 0, io.EOF
}
