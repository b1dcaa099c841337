// SPDX-License-Identifier: Apache-2.0

package inflate

import "math/bits"

// A table has an entry for what the next bits may be: for mainBits of them, and where codes
// are longer, for subBits more.
const (
	mainBits = 10
	subBits  = longest - mainBits
	longest  = 15 // bits of a code
	mainMask = 1<<mainBits - 1
	subMask  = 1<<subBits - 1

	maxLits  = 288
	maxDists = 32
	// Each table of longer codes has at least one code, most have more.
	tableSize = 1<<mainBits + maxLits<<subBits
)

type table [tableSize]entry

// entry says what a code means: how many bits it has, a value, and how many bits follow
// that are added to it.
type entry uint32

const (
	isLiteral entry = 1 << 31
	isTable   entry = 1 << 30 // the value is where the table of longer codes begins
	isEnd     entry = 1 << 7
	isBad     entry = 1 << 6 // there is no such code

	extraShift = 8
	valueShift = 13
	valueMask  = 1<<(30-valueShift) - 1
)

func (e entry) length() uint  { return uint(e & 31) }
func (e entry) extra() uint   { return uint(e >> extraShift & 31) }
func (e entry) value() uint32 { return uint32(e >> valueShift & valueMask) }

func value(v, extra uint32) entry { return entry(v<<valueShift | extra<<extraShift) }

// What the symbols of the format mean.
var (
	litMeaning  = makeLits()
	distMeaning = makeDists()
)

func makeLits() (m [maxLits]entry) {
	for i := range m {
		m[i] = isBad
	}
	for i := range 256 {
		m[i] = isLiteral | value(uint32(i), 0)
	}
	m[256] = isEnd
	base := uint32(3)
	for i := range 28 {
		extra := uint32(max(i/4-1, 0))
		m[257+i] = value(base, extra)
		base += 1 << extra
	}
	m[285] = value(mostCopy, 0)
	return m
}

func makeDists() (m [maxDists]entry) {
	base := uint32(1)
	for i := range m {
		if i >= 30 {
			m[i] = isBad
			continue
		}
		extra := uint32(max(i/2-1, 0))
		m[i] = value(base, extra)
		base += 1 << extra
	}
	return m
}

// build makes the table of codes with these lengths: false if they are no code.
func (t *table) build(lengths []uint8, meaning []entry) bool {
	var count, next [longest + 1]uint32
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	code, all := uint32(0), uint32(0)
	for n := 1; n <= longest; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
		if all += count[n] << (longest - n); all > 1<<longest {
			return false // there are too many
		}
	}
	if all < 1<<longest {
		// Only a code that has one symbol of one bit, or none, may be incomplete.
		if all > 0 && (all != 1<<(longest-1) || count[1] != 1) {
			return false
		}
		for i := range 1 << mainBits {
			t[i] = isBad
		}
	}
	tables := uint32(1 << mainBits)
	// They are known by this: an entry that an earlier build has left is none.
	var begun [1 << mainBits / 64]uint64
	for i, n := range lengths {
		if n == 0 {
			continue
		}
		reversed := uint32(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		if n <= mainBits {
			for at := reversed; at <= mainMask; at += 1 << n {
				t[at] = meaning[i] | entry(n)
			}
			continue
		}
		at := reversed & mainMask
		if begun[at/64]&(1<<(at%64)) == 0 {
			begun[at/64] |= 1 << (at % 64)
			t[at] = isTable | value(tables, 0) | mainBits
			tables += 1 << subBits
		}
		from := t[at].value()
		for sub := reversed >> mainBits; sub <= subMask; sub += 1 << (n - mainBits) {
			t[from+sub] = meaning[i] | entry(n-mainBits)
		}
	}
	return true
}

// fixedTables are those that the format has for short blocks.
func (r *Reader) fixedTables() {
	l := r.lengths[:maxLits]
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	r.lits.build(l, litMeaning[:])
	l = r.lengths[:maxDists]
	for i := range l {
		l[i] = 5
	}
	r.dists.build(l, distMeaning[:])
}

// lengthOrder is the order in which a block has the lengths of the codes of lengths.
var lengthOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// lengthMeaning are the symbols of lengths: they stand for themselves.
var lengthMeaning = func() (m [len(lengthOrder)]entry) {
	for i := range m {
		m[i] = value(uint32(i), 0)
	}
	return m
}()

// dynamicTables reads the tables of a block.
func (r *Reader) dynamicTables() error {
	v, err := r.number(14)
	if err != nil {
		return err
	}
	lits, dists, n := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if lits > 286 || dists > 30 {
		return ErrCorrupt
	}
	var order [len(lengthOrder)]uint8
	for _, at := range lengthOrder[:n] {
		l, err := r.number(3)
		if err != nil {
			return err
		}
		order[at] = uint8(l)
	}
	// The table of distances is needed only afterwards.
	if !r.dists.build(order[:], lengthMeaning[:]) {
		return ErrCorrupt
	}
	all := r.lengths[:lits+dists]
	for i := 0; i < len(all); {
		n, err := r.someLengths(all, i)
		if err != nil {
			return err
		}
		i += n
	}
	if !r.lits.build(all[:lits], litMeaning[:]) || !r.dists.build(all[lits:], distMeaning[:]) {
		return ErrCorrupt
	}
	return nil
}

// someLengths reads one symbol of lengths, and sets those from i on that it means.
func (r *Reader) someLengths(all []uint8, i int) (n int, err error) {
	e, err := r.lookup(&r.dists)
	if err != nil {
		return 0, err
	}
	sym := e.value()
	if sym < 16 {
		all[i] = uint8(sym)
		return 1, nil
	}
	var of uint8
	least, extra := 3, uint(3)
	switch sym {
	case 16:
		if i == 0 {
			return 0, ErrCorrupt
		}
		of, extra = all[i-1], 2
	case 18:
		least, extra = 11, 7
	}
	more, err := r.number(extra)
	if err != nil {
		return 0, err
	}
	if n = least + int(more); n > len(all)-i {
		return 0, ErrCorrupt
	}
	for k := range n {
		all[i+k] = of
	}
	return n, nil
}
