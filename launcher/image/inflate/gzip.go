// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"errors"
	"hash/crc32"
	"io"
)

// Flags of a gzip header.
const (
	hasHeaderCRC = 1 << 1
	hasExtra     = 1 << 2
	hasName      = 1 << 3
	hasComment   = 1 << 4
)

// header reads the header of a member.
type header struct {
	r   *Reader
	crc uint32
	err error
}

func (h *header) byte() byte {
	if h.err != nil {
		return 0
	}
	var v uint32
	v, h.err = h.r.number(8)
	h.crc = crc32.Update(h.crc, crc32.IEEETable, []byte{byte(v)})
	return byte(v)
}

// text skips a text, which ends with a zero.
func (h *header) text() {
	const most = 512 // as much as the standard library takes
	for range most {
		if h.byte() == 0 || h.err != nil {
			return
		}
	}
	h.err = ErrCorrupt
}

// member reads the header of a member: io.EOF if there is none any more.
func (r *Reader) member() error {
	if err := r.need(8); err != nil {
		if r.members > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			return io.EOF
		}
		return err
	}
	h := header{r: r}
	var fixed [10]byte
	for i := range fixed {
		fixed[i] = h.byte()
	}
	if h.err == nil && (fixed[0] != 0x1f || fixed[1] != 0x8b || fixed[2] != 8) {
		return ErrCorrupt
	}
	flags := fixed[3]
	if flags&hasExtra != 0 {
		for n := int(h.byte()) | int(h.byte())<<8; n > 0 && h.err == nil; n-- {
			h.byte()
		}
	}
	if flags&hasName != 0 {
		h.text()
	}
	if flags&hasComment != 0 {
		h.text()
	}
	if flags&hasHeaderCRC != 0 {
		want := uint16(h.crc)
		if got := uint16(h.byte()) | uint16(h.byte())<<8; h.err == nil && got != want {
			return ErrCorrupt
		}
	}
	r.members++
	r.sum() // what is there is of the member before
	r.crc, r.produced, r.base, r.state = 0, 0, r.op, atBlock
	return h.err
}

// trailer compares the checksum and the length of a member.
func (r *Reader) trailer() error {
	r.sum()
	r.align()
	crc, err := r.number(32)
	if err != nil {
		return err
	}
	size, err := r.number(32)
	if err != nil {
		return err
	}
	if crc != r.crc || size != r.produced {
		return ErrCorrupt
	}
	r.state = atMember
	return nil
}
