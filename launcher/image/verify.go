// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"
)

// ErrNoChecksum says that an image comes from an earlier version, which wrote no checksum:
// it can't be said whether it is damaged.
var ErrNoChecksum = errors.New("the image has no checksum")

// Verify reads all of an image: ErrDamaged if it is not what was put into the store. One that
// can't be read now is not damaged. A damaged image is marked. It is in the store no more then, so that the next start or pull
// fetches it again. ErrInUse says that it is being fetched or removed.
func (s *Store) Verify(ctx context.Context, digest string) error {
	claim, err := s.Lock(ctx, digest, nil)
	if err != nil {
		return err
	}
	img, err := s.Find(digest)
	if err == nil {
		err = img.verify(ctx)
		img.Close()
	}
	if errors.Is(err, ErrDamaged) {
		err = errors.Join(err, s.mark(claim.hex, err))
	}
	return errors.Join(err, claim.End(true))
}

func (i *Image) verify(ctx context.Context) error {
	if i.Info.Checksum == "" {
		// To call it damaged would take all images away that there are before an upgrade.
		if _, err := erofs.Open(i.file); err != nil {
			return damage(fmt.Errorf("read %s: %w", i.hex+treeSuffix, err))
		}
		return ErrNoChecksum
	}
	got, err := checksum(ctx, i.file)
	if err == nil && got != i.Info.Checksum {
		err = fmt.Errorf("%w: the content of %s has changed since it was written (%s, expected %s)", ErrDamaged, i.hex+treeSuffix, got, i.Info.Checksum)
	}
	return err
}

// damage is an error in what was read. What the disk did not give may be there the next time:
// that is no damage.
func damage(err error) error {
	if _, ok := errors.AsType[unix.Errno](err); ok {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// marked is the length of an image that was found damaged. No file has it: who only looks
// whether the image is there sees it too.
const marked = -1

// mark notes that an image is damaged. One whose description nobody understands is seen as
// that at each look; it may be of a later version, which must find it as it was.
func (s *Store) mark(hex string, why error) error {
	if old, err := s.outline(hex); err != nil || old.Bytes == marked {
		return nil
	}
	b, err := json.MarshalIndent(meta{Version: metaVersion, Info: Info{Digest: "sha256:" + hex, Pulled: time.Now().UTC().Truncate(time.Second), Bytes: marked, Damaged: why.Error()}}, "", "\t")
	if err != nil {
		return err
	}
	return Full(in(s.dir).Write(hex+metaSuffix, b, 0o600))
}

// The checksum is over parts of a file that are not all zeros, each with its number: the
// holes of a file are not read, and mean the same as zeros.
const checkedPart = 64 << 10

// castagnoli is made when an image is checked: to make it takes 0.2 ms, and no other start of
// a program needs it.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// checksum is that of a file. It finds what disks and people do to files: who may write the
// store can do anything.
func checksum(ctx context.Context, f *os.File) (string, error) {
	h := crc32.New(castagnoli())
	buf := make([]byte, 16*checkedPart)
	var zeros [checkedPart]byte
	for at := int64(0); ; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		at = nextData(f, at) / checkedPart * checkedPart
		n, err := f.ReadAt(buf, at)
		for off := 0; off < n; off += checkedPart {
			part := buf[off:min(off+checkedPart, n)]
			if string(part) == string(zeros[:len(part)]) {
				continue
			}
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(at)/checkedPart+uint64(off/checkedPart)))
			h.Write(part)
		}
		if errors.Is(err, io.EOF) {
			return fmt.Sprintf("crc32c:%08x", h.Sum32()), nil
		}
		if err != nil {
			return "", err
		}
		at += int64(n)
	}
}

// nextData is where what is no hole begins, from an offset on. File systems that have no
// holes do not know.
func nextData(f *os.File, at int64) int64 {
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case err == nil:
		return next
	case errors.Is(err, unix.ENXIO): // a hole up to the end
		if end, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END); err == nil {
			return max(at, end)
		}
	}
	return at
}
