// SPDX-License-Identifier: Apache-2.0

package onepage

import (
	"bytes"
	"debug/elf"
	"testing"
)

// The file is what the kernel and gVisor take it for: whole pages, nothing of it
// writable, no executable stack, text and data in their places.
func TestFile(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", "x", "/proc\x00", string(make([]byte, 2047)), string(make([]byte, 5000))} {
		text := []byte("\x90\xc3")
		b := File(text, []byte(data))
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		load, stack := f.Progs[0], f.Progs[1]
		if len(b)%page != 0 || load.Memsz != uint64(len(b)) || load.Filesz != load.Memsz || load.Vaddr != Start || load.Flags != elf.PF_R|elf.PF_X {
			t.Errorf("%d bytes: %+v", len(b), load.ProgHeader)
		}
		if stack.Type != elf.PT_GNU_STACK || stack.Flags&elf.PF_X != 0 {
			t.Errorf("stack: %+v", stack.ProgHeader)
		}
		if at := b[f.Entry-Start:]; !bytes.HasPrefix(at, text) {
			t.Errorf("entry %#x: % x", f.Entry, at[:4])
		}
		if !bytes.HasPrefix(b[Data:], []byte(data)) {
			t.Errorf("data: %q", b[Data:Data+8])
		}
	}
}

// The text ends at the mark.
func TestText(t *testing.T) {
	t.Parallel()
	code := make([]byte, Data)
	copy(code, "code"+string(end)+"more"+string(end))
	if got := Text(&code[0]); string(got) != "code" {
		t.Errorf("%q", got)
	}
}
