// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// tmpfs is the path of a detached tmpfs with the options given. It is attached
// nowhere and gone when the test is.
func tmpfs(t *testing.T, opts ...string) string {
	t.Helper()
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		hosttest.Lacks(t, "no filesystem can be made here: fsopen: %v", err)
	}
	defer unix.Close(fsfd)
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		if err := unix.FsconfigSetString(fsfd, k, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Fatal(err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mnt) })
	return fmt.Sprintf("/proc/self/fd/%d", mnt)
}

// writerIn returns a writer of the log of a directory.
func writerIn(t *testing.T, dir string, max int64) *Writer {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(int(d.Fd()), "1.log", max)
	t.Cleanup(func() {
		w.Close()
		d.Close()
	})
	return w
}

// whole fails the test if a file of a log has anything but whole lines.
func whole(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for l := range bytes.Lines(b) {
		if _, err := Parse(bytes.TrimSuffix(l, []byte("\n"))); err != nil || l[len(l)-1] != '\n' {
			t.Errorf("%q: %v", l[:min(len(l), 80)], err)
		}
	}
	return int64(len(b))
}

// On a disk that is full there are whole lines only, and when there is room
// again it is told what is missing.
func TestDiskFills(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "size=64k")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 16<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	w := writerIn(t, dir, 0)
	for range 30 {
		put(w, strings.Repeat("x", 3000))
	}
	kept, lost := len(read(t, dir)), int(w.dropped)
	if kept == 0 || lost == 0 || kept+lost != 30 {
		t.Fatalf("%d lines are kept, %d were dropped", kept, lost)
	}
	whole(t, filepath.Join(dir, "1.log"))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	put(w, "after")
	put(w, "later")
	whole(t, filepath.Join(dir, "1.log"))
	es := read(t, dir)[kept:]
	if got := texts(es); got != fmt.Sprintf("%d lines were dropped: the log could not be written after later", lost) || es[0].Stream != Internal {
		t.Errorf("%q", got)
	}
}

func texts(es []Entry) string {
	var out []string
	for _, e := range es {
		out = append(out, string(e.Text))
	}
	return strings.Join(out, " ")
}

// A disk without room for another file: the log goes on when there is one.
func TestNoInodes(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "nr_inodes=3") // the directory, the log, a file of somebody
	w := writerIn(t, dir, 100)
	put(w, "first")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		put(w, "a line that is too long for what is left of the file")
	}
	if got := texts(read(t, dir)); got != "first" {
		t.Errorf("%q", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	put(w, "after")
	if got := texts(read(t, dir)); got != "first 3 lines were dropped: the log could not be written after" {
		t.Errorf("%q", got)
	}
}

// A log that can't be rotated does not grow instead.
func TestRotationFails(t *testing.T) {
	t.Parallel()
	const max = 1000
	dir, w := logDir(t, max)
	obstacle := filepath.Join(dir, "1.log.1")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	const lines = 200
	for i := range lines {
		put(w, fmt.Sprintf("line %d", i))
	}
	if n := whole(t, filepath.Join(dir, "1.log")); n > max {
		t.Errorf("%d bytes, the cap is %d", n, max)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	put(w, "after")
	es := read(t, dir)
	var lost int
	told := es[len(es)-2]
	if _, err := fmt.Sscanf(string(told.Text), "%d lines were dropped", &lost); err != nil || told.Stream != Internal {
		t.Errorf("%q: %v", told.Text, err)
	}
	if len(es)-2+lost != lines || string(es[len(es)-1].Text) != "after" {
		t.Errorf("%d lines are there and %d were dropped, of %d", len(es)-2, lost, lines)
	}
}

// What is longer than the cap takes nothing of what came before with it.
func TestLongerThanCap(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 100)
	put(w, "one")
	put(w, strings.Repeat("x", 300))
	if got := texts(read(t, dir)); got != "one "+strings.Repeat("x", 300) {
		t.Errorf("%q", got)
	}
}

// A writer goes on where one before it has stopped, and knows how far it is.
func TestWriterAppends(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 200)
	put(w, "one")
	w.Close()
	again := writerIn(t, dir, 200)
	for _, s := range []string{"two", "three", "four", "five"} {
		put(again, s)
	}
	if got := texts(read(t, dir)); got != "one two three four five" {
		t.Errorf("%q", got)
	}
	for _, n := range []string{"1.log", "1.log.1"} {
		if size := whole(t, filepath.Join(dir, n)); size > 200 {
			t.Errorf("%s has %d bytes", n, size)
		}
	}
}

// The name of a log is not followed.
func TestLogIsLink(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	other := filepath.Join(t.TempDir(), "precious")
	if err := errors.Join(os.WriteFile(other, []byte("p"), 0o600), os.Symlink(other, filepath.Join(dir, "1.log"))); err != nil {
		t.Fatal(err)
	}
	put(w, "evil")
	if b, err := os.ReadFile(other); err != nil || string(b) != "p" || w.dropped != 1 {
		t.Errorf("%q %v, %d dropped", b, err, w.dropped)
	}
}

// A long line is cut between characters: a part is shown on a terminal by
// itself.
func TestCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"é", "€", "𝄞"} {
		for shift := range len(c) {
			input := strings.Repeat("x", shift) + strings.Repeat(c, 2*maxLine/len(c)) + "\n"
			dir, w := logDir(t, 0)
			pump(t, w, Stdout, input, 1000)
			es := read(t, dir)
			if text(es) != input || len(es) < 2 {
				t.Fatalf("%s: %d parts", c, len(es))
			}
			for _, e := range es {
				if !utf8.Valid(e.Text) {
					t.Errorf("%s after %d: a part ends in %q", c, shift, e.Text[max(len(e.Text)-4, 0):])
				}
			}
		}
	}
	// What is no character at all is cut anywhere.
	for _, c := range []string{"\xff", "\x80", "\xc2"} {
		input := strings.Repeat(c, 2*maxLine+7) + "\n"
		dir, w := logDir(t, 0)
		pump(t, w, Stdout, input, 1000)
		if got := text(read(t, dir)); got != input {
			t.Errorf("%q: %d bytes became %d", c, len(input), len(got))
		}
	}
}

// Both streams of an application share a file: no line is torn or lost.
func TestTwoStreams(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	const n = 500
	done := make(chan struct{})
	for _, s := range []Stream{Stdout, Stderr} {
		go func() {
			for i := range n {
				w.Write(time.Now(), s, []Line{{Text: fmt.Append(nil, i)}, {Text: []byte("!"), Full: true}})
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	next := map[Stream]int{}
	es := read(t, dir)
	for i := 0; i+1 < len(es); i += 2 {
		a, b := es[i], es[i+1]
		if a.Stream != b.Stream || a.Full || !b.Full || string(a.Text) != fmt.Sprint(next[a.Stream]) {
			t.Fatalf("entry %d: %+v %+v", i, a, b)
		}
		next[a.Stream]++
	}
	if next[Stdout] != n || next[Stderr] != n {
		t.Errorf("%v", next)
	}
}

// Logs stop while the disk has too little room left, and go on when it has enough;
// what was lost is counted.
func TestKeepFree(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "size=1m")
	w := writerIn(t, dir, 0)
	w.KeepFree(512 << 10)
	for range 300 {
		put(w, strings.Repeat("x", 4000))
	}
	size := whole(t, filepath.Join(dir, "1.log"))
	// It looks at the disk every 64 KiB.
	if size > 576<<10 || size < 400<<10 {
		t.Errorf("%d KiB were written, expected about 512", size>>10)
	}
	if w.dropped == 0 {
		t.Error("nothing was counted")
	}
	w.KeepFree(64 << 10)
	put(w, "after")
	if es := read(t, dir); string(es[len(es)-1].Text) != "after" || !strings.Contains(string(es[len(es)-2].Text), "lines were dropped") {
		t.Errorf("the last lines are %+v", es[len(es)-2:])
	}
}
