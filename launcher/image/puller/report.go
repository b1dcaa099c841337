// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"io"
	"sync"

	"sandboxctl.dev/launcher/image"
)

// reporter tells how far a pull is. It is used by several goroutines.
type reporter struct {
	mu   sync.Mutex
	tell image.Progress
	step image.Step
	// Bytes of layers. They are fetched and merged at the same time: what is told is the
	// merge when all is fetched. An image may have a layer twice, which is fetched once.
	toFetch, fetched, toMerge, merged int64
}

// phase begins a phase.
func (r *reporter) phase(p image.Phase, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step = image.Step{Digest: digest, Phase: p}
	r.send()
}

// begin begins to count, with what is there already.
func (r *reporter) begin(digest string, toFetch, fetched, toMerge int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.toFetch, r.fetched, r.toMerge, r.merged = toFetch, fetched, toMerge, 0
	r.step.Digest = digest
	r.count(0, 0)
}

func (r *reporter) fetchedMore(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count(n, 0)
}

func (r *reporter) mergedMore(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count(0, n)
}

// mergeAgain begins the merge from the start.
func (r *reporter) mergeAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count(0, -r.merged)
}

func (r *reporter) count(fetched, merged int64) {
	r.fetched, r.merged = r.fetched+fetched, r.merged+merged
	r.step.Phase, r.step.Done, r.step.Total = image.Merging, r.merged, r.toMerge
	if r.fetched < r.toFetch {
		r.step.Phase, r.step.Done, r.step.Total = image.Fetching, r.fetched, r.toFetch
	}
	r.send()
}

func (r *reporter) send() {
	if r.tell != nil {
		r.tell(r.step)
	}
}

// counted counts what is read for the report, until the context ends.
type counted struct {
	io.Reader
	ctx    context.Context
	report *reporter
}

func (c counted) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.Reader.Read(b)
	c.report.mergedMore(int64(n))
	return n, err
}
