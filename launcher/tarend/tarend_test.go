// SPDX-License-Identifier: Apache-2.0

package tarend

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// Behind an empty tar is nothing but zeros; behind another one is whatever a program has
// left there.
func TestBehind(t *testing.T) {
	t.Parallel()
	disk := append(make([]byte, 100_000), 'x')
	for name, c := range map[string]struct {
		empty  bool
		behind []byte
		want   error
	}{
		"nothing":            {true, nil, nil},
		"zeros":              {true, make([]byte, 100_000), nil},
		"a disk":             {true, disk, ErrNoTar},
		"behind some files":  {false, disk, nil},
		"zeros, after files": {false, make([]byte, 10), nil},
	} {
		if _, err := io.Copy(Behind{Empty: c.empty}, bytes.NewReader(c.behind)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A tar that was cut short has no end, however it was read.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tar  []byte
		want bool
	}{
		"nothing":    {nil, false},
		"less":       {make([]byte, block-1), false},
		"a block":    {make([]byte, block), true},
		"behind one": {append([]byte("x"), make([]byte, block)...), true},
		"cut":        {append(make([]byte, block), 'x'), false},
	} {
		for _, at := range []int{1, 7, block, 4 * block} {
			r := &Reader{From: bytes.NewReader(c.tar)}
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, at)); err != nil || r.Ends() != c.want {
				t.Errorf("%s, %d bytes at a time: %t %v", name, at, r.Ends(), err)
			}
		}
	}
}
