// SPDX-License-Identifier: Apache-2.0

// Package inflate decompresses gzip (RFC 1952, RFC 1951), once from the start to the end.
//
// Most of the time of a pull is spent here. What the standard library and its forks have
// looks at one byte of input at a time; this looks at eight, and writes eight. What is
// wrong in the input is an error here as it is there (the tests compare), and what is
// wrong in this package shows in checksums: that of gzip, and the digest of each layer.
package inflate

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// ErrCorrupt says that it is no gzip, or was damaged.
var ErrCorrupt = errors.New("it is not valid gzip")

const (
	inSize     = 128 << 10
	windowSize = 32 << 10 // how far back a copy reaches
	outSize    = 128 << 10
	mostCopy   = 258
	// slack is what a symbol may take behind the place where it begins: three bytes and a
	// copy, written eight bytes at a time.
	slack  = 3 + mostCopy + 8
	outLen = windowSize + outSize + slack
)

// state is what comes next in the input.
type state int

const (
	atMember  state = iota // the header of a member, or the end
	atBlock                // the header of a block
	inStored               // bytes of a stored block
	inSymbols              // symbols of a compressed block
	atTrailer              // the checksum and the length of the member
)

// Reader decompresses what it reads.
type Reader struct {
	src    io.Reader
	in     [inSize]byte
	ip, il int // what is in there and was not taken
	// bits are bit buffer: the lowest are next, and count of them are there. What is above
	// is zero, or what comes next.
	bits  uint64
	count uint

	out [outLen]byte
	op  int // its end
	rp  int // what was read of it
	// base is where the member begins in out, or what is left of it: no copy reaches further.
	base int

	state         state
	last          bool // the block is the last of the member
	stored        int  // bytes that are left of a stored block
	members       int
	lits, dists   table
	lengths       [maxLits + maxDists]uint8
	crc, produced uint32
	summed        int // what of out is in crc and produced
	err           error
}

// NewReader returns a reader of what src has in gzip.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.rp == r.op {
		if r.err != nil {
			return 0, r.err
		}
		r.slide()
		r.err = r.more()
	}
	n := copy(p, r.out[r.rp:r.op])
	r.rp += n
	return n, nil
}

// slide makes room in out, all of which was read. What copies may need stays.
func (r *Reader) slide() {
	shift := r.op - windowSize
	if shift <= 0 {
		return
	}
	copy(r.out[:windowSize], r.out[shift:r.op])
	r.op, r.rp, r.summed, r.base = windowSize, windowSize, windowSize, max(r.base-shift, 0)
}

// full says that no more is decompressed before out is read.
func (r *Reader) full() bool { return r.op > len(r.out)-slack }

// more decompresses until out is full, or to the end.
func (r *Reader) more() (err error) {
	for err == nil && !r.full() {
		switch r.state {
		case atMember:
			err = r.member()
		case atBlock:
			err = r.block()
		case inStored:
			err = r.copyStored()
		case inSymbols:
			err = r.symbols()
		case atTrailer:
			err = r.trailer()
		}
	}
	r.sum()
	return err
}

// sum adds what is new in out to the checksum of the member.
func (r *Reader) sum() {
	fresh := r.out[r.summed:r.op]
	r.crc = crc32.Update(r.crc, crc32.IEEETable, fresh)
	r.produced += uint32(len(fresh)) // modulo 2^32, as the format has it
	r.summed = r.op
}

// fetch reads more of the input. There is at least one byte more then.
func (r *Reader) fetch() error {
	copy(r.in[:], r.in[r.ip:r.il])
	r.ip, r.il = 0, r.il-r.ip
	for range 100 {
		n, err := r.src.Read(r.in[r.il:])
		r.il += n
		switch {
		case n > 0:
			return nil // an error comes again
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// need has at least n bits in the bit buffer, at most 56.
func (r *Reader) need(n uint) error {
	for r.count < n {
		if r.ip == r.il {
			if err := r.fetch(); err != nil {
				return err
			}
		}
		r.bits |= uint64(r.in[r.ip]) << r.count
		r.ip++
		r.count += 8
	}
	return nil
}

// take takes n bits that are there.
func (r *Reader) take(n uint) uint32 {
	v := uint32(r.bits & (1<<n - 1))
	r.drop(n)
	return v
}

func (r *Reader) drop(n uint) {
	r.bits >>= n
	r.count -= n
}

// number reads a number of n bits.
func (r *Reader) number(n uint) (uint32, error) {
	if err := r.need(n); err != nil {
		return 0, err
	}
	return r.take(n), nil
}

// align drops what is left of a byte.
func (r *Reader) align() { r.drop(r.count % 8) }

// block reads the header of a block.
func (r *Reader) block() error {
	if r.last {
		r.last, r.state = false, atTrailer
		return nil
	}
	v, err := r.number(3)
	if err != nil {
		return err
	}
	r.last = v&1 != 0
	switch v >> 1 {
	case 0:
		return r.storedBlock()
	case 1:
		r.fixedTables()
	case 2:
		if err := r.dynamicTables(); err != nil {
			return err
		}
	default:
		return ErrCorrupt
	}
	r.state = inSymbols
	return nil
}

func (r *Reader) storedBlock() error {
	r.align()
	v, err := r.number(32)
	if err != nil {
		return err
	}
	if uint16(v) != ^uint16(v>>16) {
		return ErrCorrupt
	}
	r.stored, r.state = int(uint16(v)), inStored
	return nil
}

// copyStored copies what there is room for.
func (r *Reader) copyStored() error {
	for r.stored > 0 && r.count > 0 {
		if r.full() {
			return nil
		}
		r.out[r.op] = byte(r.take(8))
		r.op++
		r.stored--
	}
	for r.stored > 0 {
		if r.full() {
			return nil
		}
		// What is above count belongs to bytes that are taken here.
		r.bits = 0
		if r.ip == r.il {
			if err := r.fetch(); err != nil {
				return err
			}
		}
		n := min(r.stored, r.il-r.ip, len(r.out)-slack+1-r.op)
		copy(r.out[r.op:r.op+n], r.in[r.ip:r.ip+n])
		r.op, r.ip, r.stored = r.op+n, r.ip+n, r.stored-n
	}
	r.state = atBlock
	return nil
}

// symbols decodes symbols until out is full or the block ends.
func (r *Reader) symbols() error {
	for !r.full() {
		if r.il-r.ip >= 16 {
			ended, err := r.fast()
			if ended || err != nil || r.full() {
				return err
			}
		}
		if ended, err := r.symbol(); ended || err != nil {
			return err
		}
	}
	return nil
}

// lookup finds the code that is next, and takes it.
func (r *Reader) lookup(t *table) (entry, error) {
	for {
		e := t[r.bits&mainMask]
		n := e.length()
		if e&isTable != 0 {
			e = t[e.value()+uint32(r.bits>>mainBits&subMask)]
			n += e.length()
		}
		if e&isBad == 0 && n <= r.count {
			r.drop(n)
			return e, nil
		}
		if r.count >= longest {
			return 0, ErrCorrupt
		}
		// It may be longer than what is there.
		if err := r.need(r.count + 1); err != nil {
			return 0, err
		}
	}
}

// symbol decodes one, and takes no more of the input than that has.
func (r *Reader) symbol() (ended bool, err error) {
	e, err := r.lookup(&r.lits)
	switch {
	case err != nil:
		return false, err
	case e&isLiteral != 0:
		r.out[r.op] = byte(e.value())
		r.op++
		return false, nil
	case e&isEnd != 0:
		r.state = atBlock
		return true, nil
	}
	more, err := r.number(e.extra())
	if err != nil {
		return false, err
	}
	length := int(e.value() + more)
	if e, err = r.lookup(&r.dists); err != nil {
		return false, err
	}
	if more, err = r.number(e.extra()); err != nil {
		return false, err
	}
	distance := int(e.value() + more)
	if distance > r.op-r.base {
		return false, ErrCorrupt
	}
	for end := r.op + length; r.op < end; r.op++ {
		r.out[r.op] = r.out[r.op-distance]
	}
	return false, nil
}

// fast is symbol again and again, as long as there is much input and room: at least 16
// bytes, of which a round takes at most 14.
func (r *Reader) fast() (ended bool, err error) {
	in, out, base := r.in[:r.il], &r.out, r.base
	// No closure has these variables: they would not be in registers.
	ip, op, bits, count := r.ip, r.op, r.bits, r.count
round:
	for lastIn, lastOut := len(in)-16, len(out)-slack; ip <= lastIn && op <= lastOut; {
		ip, bits, count = fill(in, ip, bits, count)
		e := r.lits[bits&mainMask]
		if e&isLiteral != 0 {
			// Three codes of the main table have 30 bits at most.
			bits, count = drop(bits, count, e)
			out[op] = byte(e >> valueShift)
			op++
			if e = r.lits[bits&mainMask]; e&isLiteral != 0 {
				bits, count = drop(bits, count, e)
				out[op] = byte(e >> valueShift)
				op++
				if e = r.lits[bits&mainMask]; e&isLiteral != 0 {
					bits, count = drop(bits, count, e)
					out[op] = byte(e >> valueShift)
					op++
					continue
				}
			}
			// A length and a distance have 48 bits at most.
			ip, bits, count = fill(in, ip, bits, count)
		}
		bits, count = drop(bits, count, e)
		if e&isTable != 0 {
			e = r.lits[e.value()+uint32(bits&subMask)]
			bits, count = drop(bits, count, e)
		}
		switch {
		case e&(isLiteral|isEnd|isBad) == 0:
		case e&isLiteral != 0:
			out[op] = byte(e >> valueShift)
			op++
			continue
		case e&isEnd != 0:
			r.state, ended = atBlock, true
			break round
		default:
			err = ErrCorrupt
			break round
		}
		length := int(e.value()) + int(bits&(1<<e.extra()-1))
		bits, count = bits>>e.extra(), count-e.extra()

		e = r.dists[bits&mainMask]
		bits, count = drop(bits, count, e)
		if e&isTable != 0 {
			e = r.dists[e.value()+uint32(bits&subMask)]
			bits, count = drop(bits, count, e)
		}
		distance := int(e.value()) + int(bits&(1<<e.extra()-1))
		bits, count = bits>>e.extra(), count-e.extra()
		if e&isBad != 0 || distance > op-base {
			err = ErrCorrupt
			break
		}
		copyBack(out, op, distance, length)
		op += length
	}
	r.ip, r.op, r.bits, r.count = ip, op, bits, count
	return ended, err
}

// fill has at least 56 bits in the bit buffer. Those above may be of a byte that is not
// taken: it gives the same bits again.
func fill(in []byte, ip int, bits uint64, count uint) (int, uint64, uint) {
	return ip + int((63-count)>>3), bits | binary.LittleEndian.Uint64(in[ip:])<<(count&63), count | 56
}

// drop drops the code of an entry.
func drop(bits uint64, count uint, e entry) (uint64, uint) {
	return bits >> (e & 31), count - uint(e&31)
}

// copyBack appends length bytes to what ends at op. They are at that distance before it.
// What is behind them in out may change.
func copyBack(out *[outLen]byte, op, distance, length int) {
	le := binary.LittleEndian
	from, end := op-distance, op+length
	if distance >= 8 {
		for op < end {
			le.PutUint64(out[op:], le.Uint64(out[from:]))
			op, from = op+8, from+8
		}
		return
	}
	for ; op < end; op, from = op+1, from+1 {
		out[op] = out[from]
	}
}
