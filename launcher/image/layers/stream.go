// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"sandboxctl.dev/launcher/image/compression"
	"sandboxctl.dev/launcher/tarend"
)

// ErrDigest says that content is not what its digest promises.
var ErrDigest = errors.New("the content does not match its digest")

// Expect is what a layer must be.
type Expect struct {
	// Digest is that of the bytes as they are stored, empty if they were checked.
	Digest string
	// DiffID is the digest of the uncompressed tar.
	DiffID string
}

// ApplyBlob adds a layer as it is stored: a tar, compressed with gzip, zstd or not at
// all. Nothing of a layer is to be used before ApplyBlob has returned nil: the digests
// are known at the end.
func (m *Merger) ApplyBlob(ctx context.Context, blob io.Reader, e Expect) error {
	_, err := m.apply(ctx, blob, e)
	return err
}

// ApplyUnknown is ApplyBlob for a layer of which nothing is known. It returns the digest
// of its tar.
func (m *Merger) ApplyUnknown(ctx context.Context, blob io.Reader) (diffID string, err error) {
	return m.apply(ctx, blob, Expect{DiffID: anything})
}

// anything in the place of a digest is true of all content.
const anything = "*"

func (m *Merger) apply(ctx context.Context, blob io.Reader, e Expect) (diffID string, err error) {
	raw := newHashed(blob, e.Digest)
	diffID, err = m.read(ctx, raw, e.DiffID)
	if err != nil {
		return "", blame(ctx, err, raw)
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return "", err
	}
	return diffID, raw.check()
}

// read adds a layer that may be compressed. Nobody reads the blob when it has returned.
func (m *Merger) read(ctx context.Context, blob io.Reader, want string) (diffID string, err error) {
	open, err := compression.Open(blob)
	if err != nil {
		return "", invalid(err)
	}
	defer open.Close()
	plain := newHashed(nil, want)
	// Other processors decompress and hash.
	ahead := readAhead(open, plain.add)
	defer ahead.Close()
	before := m.entries
	if err := m.Apply(ctx, ahead); err != nil {
		return "", invalid(err)
	}
	// What is behind the end of the tar counts for the digests.
	if _, err := io.Copy(tarend.Behind{Empty: m.entries == before}, ahead); err != nil {
		return "", invalid(err)
	}
	if plain.n == 0 && want == anything {
		return "", fmt.Errorf("%w: it is empty, and no tar is; the program that writes it may have failed", ErrInvalid)
	}
	return plain.sum(), plain.check()
}

// invalid says of a layer that can't be decompressed, or is no tar, that it is not valid.
func invalid(err error) error {
	if errors.Is(err, compression.ErrInvalid) || errors.Is(err, tarend.ErrNoTar) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// blame finds out whether a layer that makes no sense has been damaged on its way: then
// it is fetched again. That shows in its digest, if it is not compared elsewhere.
func blame(ctx context.Context, err error, raw *hashed) error {
	if ctx.Err() != nil || raw.want == "" || errors.Is(err, ErrLimit) {
		return err
	}
	if _, rerr := io.Copy(io.Discard, raw); rerr != nil {
		return errors.Join(err, rerr)
	}
	return errors.Join(raw.check(), err)
}

// hashed counts and hashes what is read.
type hashed struct {
	r    io.Reader
	h    hash.Hash
	want string
	n    int64
}

func newHashed(r io.Reader, want string) *hashed {
	return &hashed{r: r, h: sha256.New(), want: want}
}

func (h *hashed) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	h.add(b[:n])
	return n, err
}

func (h *hashed) add(b []byte) {
	h.n += int64(len(b))
	if h.want != "" {
		h.h.Write(b)
	}
}

// check compares the digest, after all has been read.
func (h *hashed) check() error {
	if h.want == "" || h.want == anything {
		return nil
	}
	if got := h.sum(); got != h.want {
		return fmt.Errorf("%w: expected %s, got %s (%d bytes)", ErrDigest, h.want, got, h.n)
	}
	return nil
}

func (h *hashed) sum() string { return "sha256:" + hex.EncodeToString(h.h.Sum(nil)) }
