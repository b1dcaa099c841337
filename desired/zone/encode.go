// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"bytes"
	"encoding/binary"
	"time"
)

// Transitions are written down from the first zone with a rule to a time that no sandbox
// sees: Go tells times, and not the rules after the last one that is in a table.
var (
	firstTransition = time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTransition  = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// kind is what holds between two transitions.
type kind struct {
	offset int32
	dst    bool
	abbr   string
}

func kindAt(t time.Time) kind {
	abbr, offset := t.Zone()
	return kind{int32(offset), t.IsDST(), abbr}
}

// table is what a TZif file has of a zone.
type table struct {
	kinds []kind
	times []int64
	use   []byte // of kinds, by times
	abbrs []byte
	at    map[string]byte
}

func (t *table) kind(k kind) byte {
	for i := range t.kinds {
		if t.kinds[i] == k {
			return byte(i)
		}
	}
	if _, there := t.at[k.abbr]; !there {
		t.at[k.abbr] = byte(len(t.abbrs))
		t.abbrs = append(append(t.abbrs, k.abbr...), 0)
	}
	t.kinds = append(t.kinds, k)
	return byte(len(t.kinds) - 1)
}

// encode writes a location as a TZif file of version 2, RFC 9636.
func encode(loc *time.Location) []byte {
	t := table{at: map[string]byte{}}
	now := firstTransition.In(loc)
	last := t.kind(kindAt(now)) // the first one is for all times before
	for {
		_, end := now.ZoneBounds()
		if end.IsZero() || end.After(lastTransition) {
			break
		}
		if !end.After(now) {
			// Go takes the end of each year for a transition, and in leap years the day
			// before it, whose end is itself.
			end = now.AddDate(0, 0, 1)
		}
		now = end
		if k := t.kind(kindAt(now)); k != last {
			t.times, t.use, last = append(t.times, now.Unix()), append(t.use, k), k
		}
	}
	var b bytes.Buffer
	// The first part is for programs of before 2005: one zone, UTC.
	header(&b, 0, 1, 1)
	b.Write(make([]byte, 6+1))
	header(&b, len(t.times), len(t.kinds), len(t.abbrs))
	for _, at := range t.times {
		_ = binary.Write(&b, binary.BigEndian, at) // a buffer takes everything
	}
	b.Write(t.use)
	for _, k := range t.kinds {
		_ = binary.Write(&b, binary.BigEndian, k.offset)
		dst := byte(0)
		if k.dst {
			dst = 1
		}
		b.Write([]byte{dst, t.at[k.abbr]})
	}
	b.Write(t.abbrs)
	b.WriteString("\n\n") // no rule for times after the last one
	return b.Bytes()
}

func header(b *bytes.Buffer, times, kinds, abbrs int) {
	b.WriteString("TZif2")
	b.Write(make([]byte, 15))
	_ = binary.Write(b, binary.BigEndian, [6]uint32{0, 0, 0, uint32(times), uint32(kinds), uint32(abbrs)})
}
