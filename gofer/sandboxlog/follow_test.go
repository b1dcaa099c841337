// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// put writes one line of text.
func put(w *Writer, text string) {
	w.Write(time.Unix(1700000000, 0), Stdout, []Line{{Text: []byte(text), Full: true}})
}

// rotateNow makes the next line the first of a new file.
func rotateNow(t *testing.T, w *Writer) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		t.Fatal("there is nothing to rotate")
	}
	if err := w.rotate(); err != nil {
		t.Fatal(err)
	}
}

// collect returns the texts that are new to a follower.
func collect(t *testing.T, f *Follower) []string {
	t.Helper()
	var got []string
	if err := f.Next(func(e Entry) error {
		got = append(got, string(e.Text))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func expectLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("read %q, expected %q", got, want)
	}
}

// busyFS is a directory in which something happens just before it is looked
// at: each hook is run once, before the operation ("open 1.log") it is for.
type busyFS struct {
	fs.FS
	hooks map[string]func()
}

func (b *busyFS) before(op string) {
	if f := b.hooks[op]; f != nil {
		delete(b.hooks, op)
		f()
	}
}

func (b *busyFS) Open(name string) (fs.File, error) {
	b.before("open " + name)
	return b.FS.Open(name)
}

func (b *busyFS) Stat(name string) (fs.FileInfo, error) {
	b.before("stat " + name)
	return fs.Stat(b.FS, name)
}

// A reader loses no line that is still there and reads none twice, whenever
// the file is rotated.
func TestFollowRotation(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"stat 1.log", "open 1.log", "open 1.log.1", "stat 1.log.1"} {
		for _, started := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s started %v", op, started), func(t *testing.T) {
				t.Parallel()
				dir, w := logDir(t, 0)
				busy := &busyFS{FS: os.DirFS(dir), hooks: map[string]func(){}}
				f := NewFollower(busy, "1.log")
				defer f.Close()
				put(w, "a")
				var got []string
				if started {
					got = collect(t, f)
				}
				// Between two looks a line is added and the file rotated.
				busy.hooks[op] = func() {
					put(w, "b")
					rotateNow(t, w)
					put(w, "c")
				}
				got = append(got, collect(t, f)...)
				busy.before(op) // if nothing has looked there
				got = append(got, collect(t, f)...)
				put(w, "d")
				got = append(got, collect(t, f)...)
				expectLines(t, got, "a", "b", "c", "d")
				expectLines(t, collect(t, f))
			})
		}
	}
}

// A follower that was away while the file was rotated twice finds what is
// between in the older file.
func TestFollowTwoRotations(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	f := NewFollower(os.DirFS(dir), "1.log")
	defer f.Close()
	put(w, "a")
	expectLines(t, collect(t, f), "a")
	put(w, "b")
	rotateNow(t, w)
	put(w, "c")
	rotateNow(t, w)
	put(w, "d")
	expectLines(t, collect(t, f), "b", "c", "d")
	// Of three, one file is gone for good; what is there is read once.
	for _, text := range []string{"e", "f", "g"} {
		put(w, text)
		rotateNow(t, w)
	}
	put(w, "h")
	expectLines(t, collect(t, f), "e", "g", "h")
	expectLines(t, collect(t, f))
}

// While no new file can be made after a rotation there is only the older one.
func TestFollowWithoutFile(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	f := NewFollower(os.DirFS(dir), "1.log")
	defer f.Close()
	expectLines(t, collect(t, f))
	put(w, "a")
	w.Close()
	if err := os.Rename(filepath.Join(dir, "1.log"), filepath.Join(dir, "1.log.1")); err != nil {
		t.Fatal(err)
	}
	expectLines(t, collect(t, f), "a")
	expectLines(t, collect(t, f))
	put(w, "b")
	expectLines(t, collect(t, f), "b")
	expectLines(t, collect(t, f))
}

// A line is read when it is whole, and from its beginning.
func TestFollowMiddle(t *testing.T) {
	t.Parallel()
	dir, _ := logDir(t, 0)
	file, err := os.Create(filepath.Join(dir, "1.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	add := func(s string) {
		t.Helper()
		if _, err := file.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	const stamp = "2026-01-02T03:04:05.000000006Z stdout "
	f := NewFollower(os.DirFS(dir), "1.log")
	defer f.Close()
	add(stamp + "F one\n" + stamp)
	expectLines(t, collect(t, f), "one")
	add("F t")
	expectLines(t, collect(t, f))
	add("wo\n" + stamp + "P part\nnot ours\n\n" + stamp + "X bad\n" + stamp + "F \x00\x1b[2J\r\n")
	expectLines(t, collect(t, f), "two", "part", "\x00\x1b[2J\r")
	// One that is longer than any of ours has no end that could be one.
	add(strings.Repeat("\x00", 3*maxEntry) + stamp)
	expectLines(t, collect(t, f))
	add("F forged\n")
	add(stamp + "F after\n")
	expectLines(t, collect(t, f), "after")
}

func TestFollowErrors(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	put(w, "a")
	put(w, "b")
	stop := errors.New("stop")
	f := NewFollower(os.DirFS(dir), "1.log")
	defer f.Close()
	n := 0
	if err := f.Next(func(Entry) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d lines", err, n)
	}
	expectLines(t, collect(t, f), "b")
	if err := os.Mkdir(filepath.Join(dir, "2.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	bad := NewFollower(os.DirFS(dir), "2.log")
	defer bad.Close()
	if err := bad.Next(func(Entry) error { return nil }); err == nil {
		t.Error("a directory is read as a log")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	const at = "2026-01-02T03:04:05.000000006Z"
	for line, want := range map[string]Entry{
		at + " stdout F hello":         {Stream: Stdout, Full: true, Text: []byte("hello")},
		at + " stderr P  two  spaces ": {Stream: Stderr, Text: []byte(" two  spaces ")},
		at + " sandboxctl F ":          {Stream: Internal, Full: true, Text: []byte{}},
		at + " stdout F \x00\xff\x1b":  {Stream: Stdout, Full: true, Text: []byte("\x00\xff\x1b")},
		at + " stdout F " + at:         {Stream: Stdout, Full: true, Text: []byte(at)},
	} {
		e, err := Parse([]byte(line))
		if err != nil || e.Stream != want.Stream || e.Full != want.Full || !bytes.Equal(e.Text, want.Text) || e.At.UnixNano()%10 != 6 {
			t.Errorf("%q: %+v %v", line, e, err)
		}
	}
	for _, bad := range []string{
		"", " ", "   ", at, at + " stdout", at + " stdout F", at + " stdout f x", at + " stdout FF x", at + " stdout  x", at + " stdin F x",
		at + " STDOUT F x", "yesterday stdout F x", " " + at + " stdout F x", at + "\tstdout F x", "\x00" + at + " stdout F x",
	} {
		if e, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, e)
		}
	}
}

// Reading in two steps is reading at once, wherever the first step ended.
func FuzzScan(f *testing.F) {
	line := "2026-01-02T03:04:05.000000006Z stdout F hello\n"
	f.Add([]byte(line+line), 50)
	f.Add([]byte(line+"junk\n"+line), 3)
	f.Add([]byte(strings.Repeat("\x00", maxEntry+5)+line+line), maxEntry+1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		scan := func(b []byte) (out []string, off int64) {
			off, err := Scan(bytes.NewReader(b), func(e Entry) error {
				out = append(out, fmt.Sprint(e.At.UnixNano(), e.Stream, e.Full, string(e.Text)))
				return nil
			})
			if err != nil || off < 0 || off > int64(len(b)) || off > 0 && b[off-1] != '\n' {
				t.Fatalf("%d of %d bytes: %v", off, len(b), err)
			}
			return out, off
		}
		whole, _ := scan(b)
		cut = max(0, min(cut, len(b)))
		first, off := scan(b[:cut])
		second, _ := scan(b[off:])
		if got := append(first, second...); !slices.Equal(got, whole) {
			t.Errorf("cut at %d: %q, at once %q", cut, got, whole)
		}
	})
}
