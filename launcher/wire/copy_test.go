// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	want := strings.Repeat("0123456789", 20_000)
	for _, part := range []string{want[:7], "", want[7:]} {
		if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatal(n, err)
		}
	}
	if err := w.End(&CopyResult{Error: "why", Skipped: 3}); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	r := iotest.OneByteReader(bytes.NewReader(whole))
	got, err := io.ReadAll(NewFrameReader(r))
	if err != nil || string(got) != want {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if res, err := ReadResult(r); err != nil || res.Error != "why" || res.Skipped != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	// The end of who sends is not the end of what is sent.
	for _, n := range []int{0, 3, 4, 10, len(want)} {
		if _, err := io.ReadAll(NewFrameReader(bytes.NewReader(whole[:n]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d: %v", n, err)
		}
	}
	if _, err := io.ReadAll(NewFrameReader(strings.NewReader("\xff\xff\xff\xff"))); err == nil {
		t.Error("a frame of 4 GiB is taken")
	}
	if _, err := ReadResult(strings.NewReader(`{"error":"` + strings.Repeat("x", 100_000) + `"}`)); err == nil {
		t.Error("an endless result is taken")
	}
}
