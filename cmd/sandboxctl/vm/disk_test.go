// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// disk is a disk in memory with a volatile write cache, as real ones have it: a
// write is complete when it is in the cache, and durable after a flush, or at
// once if the guest asks for that (FUA). qemu reaches it by the NBD protocol.
//
// Killing qemu on a disk that is a file would lose nothing of this: the page
// cache of the host keeps what the guest has not flushed.
type disk struct {
	mu      sync.Mutex
	durable []byte // what is safe
	seen    []byte // what the guest reads: with the writes of the cache
	cache   []write
	// writeThrough is a disk without a cache: all that completes is durable.
	writeThrough bool
	// served is closed when what a machine has sent before it was off is in the
	// cache; then err says how that ended.
	served chan struct{}
	err    error
	// countdown is the number of writes and flushes after which the power is cut, 0
	// for never: the last one is not carried out, and cutNow is closed.
	countdown int
	cutNow    chan struct{}
}

// write is one that was completed and not flushed.
type write struct {
	offset int64
	data   []byte
}

// block is what a disk writes whole or not at all, in bytes. ext4 counts on that for
// its own blocks: the checksum of its superblock is in another sector of 512 bytes
// than the rest of it, and a superblock torn between them is never mounted again.
const block = 4096

// newDisk is a disk with an empty filesystem.
func newDisk(t *testing.T, size int64) *disk {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	// The journal is as small as it can be, so that it wraps around.
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", strconv.Itoa(block), "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", image).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	b, err := os.ReadFile(image)
	must(t, err)
	must(t, os.Remove(image))
	return &disk{durable: b, seen: append([]byte(nil), b...)}
}

// attach serves the disk to the other end of a socket until that is closed.
func (d *disk) attach(f *os.File) {
	d.served = make(chan struct{})
	go func() {
		defer close(d.served)
		defer f.Close()
		d.err = d.serve(f)
	}()
}

// cutAfter has the power cut after a number of writes and flushes from now on,
// which finds the moments at which something is in the cache.
func (d *disk) cutAfter(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.countdown, d.cutNow = n, make(chan struct{})
	return d.cutNow
}

// errCut is the end of a disk whose power was cut.
var errCut = errors.New("the power was cut")

// count counts a write or a flush, and says whether it is the last one.
func (d *disk) count() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.countdown == 0 {
		return nil
	}
	if d.countdown--; d.countdown > 0 {
		return nil
	}
	close(d.cutNow)
	return errCut
}

// cut is what a power cut does to the disk, after the machine is off: of the
// writes in the cache it keeps some, whole or in part, in any order. The seed says which.
func (d *disk) cut(r *rand.Rand) (kept, lost int) {
	<-d.served
	d.mu.Lock()
	defer d.mu.Unlock()
	d.countdown = 0
	// Disks differ: one loses everything, one nothing, most lose something.
	share := []float64{0, 1, r.Float64(), r.Float64()}[r.IntN(4)]
	r.Shuffle(len(d.cache), func(i, j int) { d.cache[i], d.cache[j] = d.cache[j], d.cache[i] })
	if share == 1 {
		copy(d.durable, d.seen) // in the right order, too
		kept, d.cache = len(d.cache), nil
	}
	for _, w := range d.cache {
		if r.Float64() >= share {
			lost++
			continue
		}
		kept++
		n := len(w.data)
		if r.IntN(4) == 0 { // torn
			n = block * r.IntN(n/block+1)
		}
		copy(d.durable[w.offset:], w.data[:n])
	}
	d.cache = nil
	copy(d.seen, d.durable)
	return kept, lost
}

func (d *disk) write(offset int64, data []byte, durable bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.seen[offset:], data)
	if durable || d.writeThrough {
		copy(d.durable[offset:], data)
		return
	}
	d.cache = append(d.cache, write{offset, data})
}

func (d *disk) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.cache {
		copy(d.durable[w.offset:], w.data)
	}
	d.cache = nil
}

// Numbers of the NBD protocol, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
const (
	nbdMagic, optMagic, optReply     uint64 = 0x4e42444d41474943, 0x49484156454f5054, 0x3e889045565a9
	requestMagic, replyMagic         uint32 = 0x25609513, 0x67446698
	optAbort, optGo                  uint32 = 2, 7
	repAck, repInfo, repUnsupported  uint32 = 1, 3, 1<<31 + 1
	cmdRead, cmdWrite, cmdOff, cmdFl uint16 = 0, 1, 2, 3
	flagFUA                          uint16 = 1
	exportFlags                      uint16 = 1 | 1<<2 | 1<<3 // flags, flush, FUA
	maxRequest                              = 64 << 20
)

// serve speaks the server's side of the protocol. An end between two requests is an orderly one.
func (d *disk) serve(c io.ReadWriter) error {
	if err := d.negotiate(c); err != nil {
		return err
	}
	for {
		var q struct {
			Magic          uint32
			Flags, Type    uint16
			Cookie, Offset uint64
			Length         uint32
		}
		if err := binary.Read(c, binary.BigEndian, &q); err != nil || q.Type == cmdOff {
			return err
		}
		if q.Magic != requestMagic || q.Length > maxRequest || q.Offset+uint64(q.Length) > uint64(len(d.seen)) {
			return fmt.Errorf("bad request %+v", q)
		}
		if q.Type != cmdRead {
			if err := d.count(); err != nil {
				return err
			}
		}
		var data []byte
		switch q.Type {
		case cmdRead:
			d.mu.Lock()
			data = append(data, d.seen[q.Offset:q.Offset+uint64(q.Length)]...)
			d.mu.Unlock()
		case cmdWrite:
			b := make([]byte, q.Length)
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
			d.write(int64(q.Offset), b, q.Flags&flagFUA != 0)
		case cmdFl:
			d.flush()
		default:
			return fmt.Errorf("a request that was not offered: %+v", q)
		}
		answer := binary.BigEndian.AppendUint32(nil, replyMagic)
		answer = binary.BigEndian.AppendUint32(answer, 0)
		answer = binary.BigEndian.AppendUint64(answer, q.Cookie)
		if _, err := c.Write(append(answer, data...)); err != nil {
			return err
		}
	}
}

// negotiate tells size and abilities of the disk, whatever its name.
func (d *disk) negotiate(c io.ReadWriter) error {
	send := func(v ...any) error {
		var b []byte
		var errs []error
		for _, v := range v {
			var err error
			b, err = binary.Append(b, binary.BigEndian, v)
			errs = append(errs, err)
		}
		_, err := c.Write(b)
		return errors.Join(append(errs, err)...)
	}
	if err := send(nbdMagic, optMagic, uint16(1)); err != nil {
		return err
	}
	var flags uint32
	if err := binary.Read(c, binary.BigEndian, &flags); err != nil {
		return err
	}
	for {
		var o struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(c, binary.BigEndian, &o); err != nil {
			return err
		}
		if o.Magic != optMagic || o.Length > 1<<16 {
			return fmt.Errorf("bad option %+v", o)
		}
		if _, err := io.CopyN(io.Discard, c, int64(o.Length)); err != nil {
			return err
		}
		var err error
		switch o.Option {
		case optGo:
			err = errors.Join(
				send(optReply, o.Option, repInfo, uint32(12), uint16(0), uint64(len(d.seen)), exportFlags),
				send(optReply, o.Option, repAck, uint32(0)))
			return err
		case optAbort:
			return errors.New("the client gave up")
		default:
			err = send(optReply, o.Option, repUnsupported, uint32(0))
		}
		if err != nil {
			return err
		}
	}
}
