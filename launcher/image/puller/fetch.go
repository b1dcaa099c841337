// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/layers"
	"sandboxctl.dev/launcher/image/source"
)

const (
	// fetches is how many layers are fetched at a time.
	fetches = 3
	// tries is how often a layer is asked for before the pull fails. Each goes on where
	// the last one ended.
	tries = 4

	// A layer has one of these names in front of its digest: a part of it, or all.
	partPrefix = "part-"
	blobPrefix = "blob-"
)

// fetcher fetches the layers of one image into the directory of a pull.
type fetcher struct {
	src    source.Source
	dir    *os.File // of the pull
	store  *os.File // whose disk is looked at
	report *reporter
}

// start fetches the layers. stop ends that, and waits until nothing is written any more.
func (f *fetcher) start(ctx context.Context, img *source.Image, total int64) (out []*blob, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan *blob, len(img.Layers))
	same := map[string]*blob{}
	var size, kept int64
	for _, l := range img.Layers {
		b, ok := same[l.Digest]
		if !ok { // an image may have a layer twice
			b = newBlob(f, l)
			same[l.Digest] = b
			queue <- b
			size, kept = size+l.Size, kept+b.told
		}
		out = append(out, b)
	}
	close(queue)
	f.report.begin(img.Digest, size, kept, total)
	var workers sync.WaitGroup
	for range fetches {
		workers.Go(func() {
			for b := range queue {
				b.end(f.layer(ctx, b))
			}
		})
	}
	return out, func() {
		cancel()
		workers.Wait()
	}
}

// layer fetches a layer, or finds that it is there.
func (f *fetcher) layer(ctx context.Context, b *blob) error {
	if size, err := f.size(blobPrefix + b.hex()); err == nil && size == b.layer.Size {
		b.begin(false)
		b.grow(size)
		return nil
	}
	if err := f.fetch(ctx, b); err != nil {
		return fmt.Errorf("layer %s: %w", b.layer.Digest, err)
	}
	return nil
}

func (f *fetcher) size(name string) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(f.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Size, err
}

// kept is how much of a layer an earlier pull has left.
func (f *fetcher) kept(b *blob) int64 {
	for _, prefix := range []string{blobPrefix, partPrefix} {
		if n, err := f.size(prefix + b.hex()); err == nil {
			return min(n, b.layer.Size)
		}
	}
	return 0
}

func (f *fetcher) fetch(ctx context.Context, b *blob) error {
	crashpoint.Before(crashpoint.PullCreate)
	part, err := dirfd.Open(int(f.dir.Fd()), partPrefix+b.hex(), unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	crashpoint.After(crashpoint.PullCreate)
	if err != nil {
		return image.Full(fmt.Errorf("keep: %w", err))
	}
	defer part.Close()
	b.begin(true)
	p := &partial{blob: b, src: f.src, file: part, room: roomy{dir: f.store, file: part}, buf: make([]byte, copySize)}
	if err := p.resume(); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := p.more(ctx)
		switch {
		case err == nil:
			return f.complete(b.hex())
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, layers.ErrDigest):
			// What was there is of no use, and nor would be the rest of it.
			if rerr := p.restart(); rerr != nil {
				return errors.Join(err, rerr)
			}
		case errors.Is(err, source.ErrMissing), errors.Is(err, source.ErrUnauthorized), errors.Is(err, image.ErrDiskFull):
			return err
		}
		if try == tries {
			return err
		}
	}
}

// complete gives a layer the name of one that is complete.
func (f *fetcher) complete(name string) error {
	return crashpoint.Do(crashpoint.PullRename, func() error {
		return unix.Renameat(int(f.dir.Fd()), partPrefix+name, int(f.dir.Fd()), blobPrefix+name)
	})
}

// open opens a layer for reading, which may still be fetched. It has the other name as soon
// as it does not have the first.
func (f *fetcher) open(b *blob) (*os.File, error) {
	const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS
	in, err := dirfd.Open(int(f.dir.Fd()), partPrefix+b.hex(), unix.O_RDONLY, noLinks)
	if errors.Is(err, fs.ErrNotExist) {
		in, err = dirfd.Open(int(f.dir.Fd()), blobPrefix+b.hex(), unix.O_RDONLY, noLinks)
	}
	return in, err
}

// partial is a layer that is not complete.
type partial struct {
	*blob
	room roomy
	src  source.Source
	file *os.File
	hash hash.Hash
	have int64 // bytes that are in the file and in the hash
	buf  []byte
}

// copySize is how much is copied at a time.
const copySize = 256 << 10

// resume hashes what an earlier pull has left.
func (p *partial) resume() error {
	p.hash = sha256.New()
	n, err := io.CopyBuffer(p.hash, io.LimitReader(p.file, p.layer.Size), p.buf)
	if err != nil {
		return fmt.Errorf("read what was fetched before: %w", err)
	}
	p.have = n
	p.grow(n)
	return nil
}

// restart forgets it.
func (p *partial) restart() error {
	p.blob.restart()
	p.have = 0
	p.hash.Reset()
	return p.file.Truncate(0)
}

// more fetches what is missing, as far as the source gives it.
func (p *partial) more(ctx context.Context) error {
	if p.have < p.layer.Size {
		body, at, err := p.src.Open(ctx, p.layer, p.have)
		if err != nil {
			return err
		}
		defer body.Close()
		if at != p.have {
			if err := p.restart(); err != nil {
				return err
			}
		}
		// One byte more than there should be is enough to know.
		if _, err := io.CopyBuffer(p, io.LimitReader(body, p.layer.Size-p.have+1), p.buf); err != nil {
			return err
		}
	}
	if p.have < p.layer.Size {
		return fmt.Errorf("%w: it ended after %d of %d bytes", source.ErrUnreachable, p.have, p.layer.Size)
	}
	if got := "sha256:" + hex.EncodeToString(p.hash.Sum(nil)); p.have > p.layer.Size || got != p.layer.Digest {
		return fmt.Errorf("%w: %d bytes with the digest %s came", layers.ErrDigest, p.have, got)
	}
	return p.file.Truncate(p.layer.Size)
}

// Write implements io.Writer: it is what came.
func (p *partial) Write(b []byte) (n int, err error) {
	if err := p.room.grow(len(b)); err != nil {
		return 0, err
	}
	err = crashpoint.Do(crashpoint.PullWrite, func() error {
		n, err = p.file.WriteAt(b, p.have)
		return err
	})
	if err != nil {
		return n, image.Full(err)
	}
	p.hash.Write(b)
	p.have += int64(n)
	p.grow(p.have)
	return n, nil
}

// forget removes a layer that turned out to be damaged, so that it is fetched again.
func (f *fetcher) forget(b *blob) error { return image.RemoveFile(f.dir, blobPrefix+b.hex()) }
