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

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// logDir is a directory with a writer in it.
func logDir(t *testing.T, max int64) (string, *Writer) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := NewWriter(int(f.Fd()), "1.log", max)
	t.Cleanup(w.Close)
	return dir, w
}

func read(t *testing.T, dir string) []Entry {
	t.Helper()
	var out []Entry
	f := NewFollower(os.DirFS(dir), "1.log")
	defer f.Close()
	if err := f.Next(func(e Entry) error {
		e.Text = bytes.Clone(e.Text)
		out = append(out, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// pump sends input through a pipe to the writer and waits for its end.
func pump(t *testing.T, w *Writer, stream Stream, input string, chunk int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	p, err := NewPump(fds[0], w, stream)
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	out := os.NewFile(uintptr(fds[1]), "pipe")
	for len(input) > 0 {
		n := min(chunk, len(input))
		if _, err := out.WriteString(input[:n]); err != nil {
			t.Fatal(err)
		}
		input = input[n:]
	}
	out.Close()
	select {
	case <-p.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the pump does not end with its pipe")
	}
}

func text(es []Entry) string {
	var b strings.Builder
	for _, e := range es {
		b.Write(e.Text)
		if e.Full {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// Whatever is written comes out, in lines with time and stream.
func TestPump(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*maxLine+17)
	for _, input := range []string{"one\ntwo\n", "no newline", "\n\n", long + "\nshort\n", "a\x00b\x1b[2J\n", "\xff\xfe\n", ""} {
		for _, chunk := range []int{1, 7, 100000} {
			dir, w := logDir(t, 0)
			pump(t, w, Stderr, input, chunk)
			es := read(t, dir)
			want := input
			if want != "" && !strings.HasSuffix(want, "\n") {
				want += "\n"
			}
			if got := text(es); got != want {
				t.Errorf("chunks of %d: %q became %q", chunk, input[:min(len(input), 40)], got[:min(len(got), 80)])
			}
			for _, e := range es {
				if e.Stream != Stderr || time.Since(e.At) > time.Minute || len(e.Text) > maxLine {
					t.Errorf("%+v", e)
				}
			}
		}
	}
}

func TestPumpAnything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		input := rapid.StringN(0, 3000, 20000).Draw(rt, "input")
		dir, w := logDir(t, 0)
		pump(t, w, Stdout, input, rapid.IntRange(1, 5000).Draw(rt, "chunk"))
		want := input
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if got := text(read(t, dir)); got != want {
			rt.Fatalf("%q became %q", want, got)
		}
	})
}

// A log never takes more than twice its cap, and what is kept is the end.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 10_000)
	for i := range 2000 {
		w.Write(time.Now(), Stdout, []Line{{Text: fmt.Appendf(nil, "line %d", i), Full: true}})
	}
	for _, n := range []string{"1.log", "1.log.1"} {
		info, err := os.Stat(filepath.Join(dir, n))
		if err != nil || info.Size() > 10_000 {
			t.Errorf("%s: %v %v", n, info.Size(), err)
		}
	}
	es := read(t, dir)
	last := string(es[len(es)-1].Text)
	if last != "line 1999" || len(es) < 200 {
		t.Errorf("%d lines are kept, the last %q", len(es), last)
	}
	for i := 1; i < len(es); i++ {
		if es[i].At.Before(es[i-1].At) {
			t.Fatal("out of order")
		}
	}
}

// A full disk costs the lines that do not fit, and says how many.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 0)
	w.Write(time.Now(), Stdout, []Line{{Text: []byte("before"), Full: true}})
	// A descriptor that can't be written takes the place of the disk.
	good := w.fd
	bad, err := unix.Open("/dev/full", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.fd = bad
	for range 3 {
		w.Write(time.Now(), Stdout, []Line{{Text: []byte("lost"), Full: true}})
	}
	w.fd = good
	unix.Close(bad)
	w.Write(time.Now(), Stdout, []Line{{Text: []byte("after"), Full: true}})
	if got := text(read(t, dir)); got != "before\n3 lines were dropped: the log could not be written\nafter\n" {
		t.Errorf("%q", got)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	dir, w := logDir(t, 500)
	f := NewFollower(os.DirFS(dir), "1.log")
	defer f.Close()
	var got []string
	next := func() {
		t.Helper()
		if err := f.Next(func(e Entry) error {
			got = append(got, string(e.Text))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	next()
	for i := range 40 {
		w.Write(time.Now(), Stdout, []Line{{Text: fmt.Append(nil, i), Full: true}})
		next()
	}
	for i := range got {
		if got[i] != fmt.Sprint(i) {
			t.Fatalf("line %d is %q: %v", i, got[i], got)
		}
	}
	if len(got) != 40 {
		t.Errorf("%d lines", len(got))
	}
	stop := errors.New("stop")
	if err := NewFollower(os.DirFS(dir), "1.log").Next(func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// A line that is read is written the same, and one that is written is read.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		"2026-01-02T03:04:05.000000006Z stdout F hello", "2026-01-02T03:04:05Z stderr P ", "2026-01-02T03:04:05+01:00 sandboxctl F a b",
		"9999-12-31T23:59:59-23:59 stdout F x", "0000-01-01T00:00:00+23:59 stdout F x", "  stdout F x", "2026-01-02T03:04:05Z stdin F x", "\x00", "",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if e.Stream != Stdout && e.Stream != Stderr && e.Stream != Internal || !bytes.HasSuffix(b, e.Text) {
			t.Fatalf("%+v", e)
		}
		if y := e.At.UTC().Year(); y < 0 || y > 9999 {
			return // no time that is written
		}
		line := appendLine(nil, e.At, e.Stream, Line{Text: e.Text, Full: e.Full})
		again, err := Parse(line[:len(line)-1])
		if err != nil || !again.At.Equal(e.At) || again.Stream != e.Stream || again.Full != e.Full || !bytes.Equal(again.Text, e.Text) {
			t.Fatalf("%+v is read as %+v: %v", e, again, err)
		}
	})
}

// What an application writes, in whatever pieces, is what is read of the log: no
// byte is lost, added or taken for a line of the log's own.
func FuzzStream(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add([]byte("2026-01-02T03:04:05Z sandboxctl F forged\n"), 3)
	f.Add([]byte("\x00\xff\xc2\n\n\r\n"), 2)
	f.Add(bytes.Repeat([]byte("é"), maxLine), 1000)
	f.Add(append(bytes.Repeat([]byte{0x80}, maxLine+1), '\n'), maxLine)
	f.Fuzz(func(t *testing.T, input []byte, piece int) {
		piece = max(1, min(piece, maxLine))
		var log []byte
		var buf [maxLine]byte
		have := 0
		at := time.Unix(1700000000, 0)
		write := func(lines []Line) {
			for _, l := range lines {
				if len(l.Text) > maxLine {
					t.Fatalf("%d bytes in a line", len(l.Text))
				}
				log = appendLine(log, at, Stdout, l)
			}
		}
		for rest := input; len(rest) > 0; {
			n := copy(buf[have:], rest[:min(piece, len(rest))])
			rest = rest[n:]
			var lines []Line
			lines, have = split(buf[:], have+n, nil)
			if have >= len(buf) {
				t.Fatal("there is no room for more")
			}
			write(lines)
		}
		if have > 0 {
			write([]Line{{Text: buf[:have], Full: true}})
		}
		var got []byte
		n, err := Scan(bytes.NewReader(log), func(e Entry) error {
			if e.Stream != Stdout {
				t.Fatalf("%+v was not written", e)
			}
			got = append(got, e.Text...)
			if e.Full {
				got = append(got, '\n')
			}
			return nil
		})
		if err != nil || n != int64(len(log)) {
			t.Fatalf("%d of %d bytes: %v", n, len(log), err)
		}
		want := input
		if len(want) > 0 && want[len(want)-1] != '\n' && have > 0 {
			want = append(bytes.Clone(want), '\n')
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q became %q", want, got)
		}
	})
}

// An unfinished line is seen after a moment, also one that grows slowly; its rest
// follows, no character is cut, and the end of the pipe ends it.
func TestPartialLine(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		first, rest, early string
	}{
		"prompt":             {"name? ", "ok\n", "name? "},
		"two lines":          {"one\ntwo", "\nthree\n", "one\ntwo"},
		"half a character":   {"caf\xc3", "\xa9\n", "caf"},
		"no character":       {"\xff", "x\n", "\xff"},
		"ends unfinished":    {"tail", "", "tail"},
		"ends with the rest": {"a", "b", "a"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir, w := logDir(t, 0)
			var fds [2]int
			if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			p, err := NewPump(fds[0], w, Stdout)
			if err != nil {
				t.Fatal(err)
			}
			p.Start()
			out := os.NewFile(uintptr(fds[1]), "pipe")
			for i := range len(c.first) {
				if _, err := out.WriteString(c.first[i : i+1]); err != nil {
					t.Fatal(err)
				}
			}
			deadline := time.Now().Add(2 * time.Minute)
			for text(read(t, dir)) != c.early {
				if time.Now().After(deadline) {
					t.Fatalf("%q is not seen, but %q", c.early, text(read(t, dir)))
				}
				time.Sleep(5 * time.Millisecond)
			}
			if _, err := out.WriteString(c.rest); err != nil {
				t.Fatal(err)
			}
			out.Close()
			<-p.Done()
			want := strings.TrimSuffix(c.first+c.rest, "\n") + "\n"
			if got := text(read(t, dir)); got != want {
				t.Errorf("%q, expected %q", got, want)
			}
		})
	}
}
