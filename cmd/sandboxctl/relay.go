// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// relay turns our streams into descriptors that can be given to a sandbox. A
// pipe is given as it is. All else is copied through one: a terminal is open for
// reading on every stream, and whatever the sandbox leaves behind could go on
// reading what its owner types; in a regular file the sentry would keep an
// offset of its own, from 0, and write over what is there.
type relay struct {
	given  []*os.File // ours to close when the sandbox has its own
	copies sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

// open gives a file by name.
func (r *relay) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r.given = append(r.given, f)
	return f, nil
}

// direct returns the stream if it can be given as it is.
func direct(stream any) *os.File {
	f, ok := stream.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		return nil
	}
	return f
}

// input gives a stream to read from.
func (r *relay) input(stream io.Reader) (*os.File, error) {
	if f := direct(stream); f != nil {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	r.given = append(r.given, pr)
	go func() {
		// It ends when the input does, or when the command stops to read: no
		// error of ours either way.
		_, _ = io.Copy(pw, stream)
		_ = pw.Close()
	}()
	return pr, nil
}

// output gives a stream to write to.
func (r *relay) output(stream io.Writer) (*os.File, error) {
	if f := direct(stream); f != nil {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	r.given = append(r.given, pw)
	r.copies.Go(func() {
		_, err := io.Copy(stream, pr)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs = append(r.errs, err, pr.Close())
	})
	return pw, nil
}

// streams gives all three.
func (r *relay) streams(a *app) (out [3]*os.File, err error) {
	if out[0], err = r.input(a.stdin); err != nil {
		return out, err
	}
	if out[1], err = r.output(a.stdout); err != nil {
		return out, err
	}
	out[2], err = r.output(a.stderr)
	return out, err
}

// started closes our copies of what the sandbox has now: when it closes its
// own, the copies come to their end.
func (r *relay) started() error {
	var errs []error
	for _, f := range r.given {
		errs = append(errs, f.Close())
	}
	r.given = nil
	return errors.Join(errs...)
}

// finish waits until everything was copied.
func (r *relay) finish() error {
	r.copies.Wait()
	return errors.Join(r.errs...)
}

// abort releases what was given if the command did not start.
func (r *relay) abort() error {
	if r.given == nil {
		return nil
	}
	err := r.started()
	r.copies.Wait()
	return err
}
