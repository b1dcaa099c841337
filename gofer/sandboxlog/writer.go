// SPDX-License-Identifier: Apache-2.0

package sandboxlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Stream is where a line came from.
type Stream string

// The streams. Internal lines are the gofer's own, about the log itself.
const (
	Stdout   Stream = "stdout"
	Stderr   Stream = "stderr"
	Internal Stream = "sandboxctl"
)

// TimeFormat is RFC 3339 with a fixed number of digits, so that lines sort.
const TimeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// maxLine is the longest text in one line; longer ones are cut into parts.
const maxLine = 4096

// defaultMaxBytes is the size at which a log file is rotated.
const defaultMaxBytes = 10 << 20

// Writer appends lines to one log file and rotates it. It is safe for
// concurrent use.
type Writer struct {
	dir  int
	name string
	max  int64

	mu      sync.Mutex
	fd      int // -1: not open
	size    int64
	dropped int64 // lines since the last that could be written
	buf     []byte

	leastFree uint64
	unchecked int       // bytes written since the disk was looked at
	checked   time.Time // when it was
}

// errLowDisk says that the disk has not enough room for logs.
var errLowDisk = errors.New("the disk is nearly full")

// How much may be written, and how long, without a look at the disk.
const (
	checkBytes = 64 << 10
	checkEvery = time.Second
)

// KeepFree has nothing written while the disk has less free space than this, not
// counting what is reserved for root. It is called before the first line.
func (w *Writer) KeepFree(bytes uint64) { w.leastFree = bytes }

// lowDisk says whether the disk has too little room. It looks now and then, and
// each time while that is so.
func (w *Writer) lowDisk(at time.Time, n int) bool {
	since := at.Sub(w.checked)
	if w.leastFree == 0 || w.dropped == 0 && w.unchecked+n < checkBytes && since >= 0 && since < checkEvery {
		w.unchecked += n
		return false
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(w.dir, &st); err != nil {
		return false // the write tells
	}
	w.unchecked, w.checked = 0, at
	// Space that is reserved for root does not count: a log is not worth it.
	return st.Bavail*uint64(st.Bsize) < w.leastFree
}

// NewWriter returns a writer for the file name in the directory of descriptor
// dir, which it does not own. Nothing is opened before the first line.
func NewWriter(dir int, name string, max int64) *Writer {
	if max <= 0 {
		max = defaultMaxBytes
	}
	return &Writer{dir: dir, name: name, max: max, fd: -1}
}

// Line is one line or part of a line.
type Line struct {
	Text []byte
	Full bool
}

// Write appends lines, all with the time at, in one write. A failure is
// counted; the next success says how many lines were lost and why.
func (w *Writer) Write(at time.Time, stream Stream, lines []Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = w.buf[:0]
	if w.dropped > 0 {
		w.buf = appendLine(w.buf, at, Internal, Line{Text: fmt.Appendf(nil, "%d lines were dropped: the log could not be written", w.dropped), Full: true})
	}
	for _, l := range lines {
		w.buf = appendLine(w.buf, at, stream, l)
	}
	err := errLowDisk
	if !w.lowDisk(at, len(w.buf)) {
		err = w.append(w.buf)
	}
	if err != nil {
		w.dropped += int64(len(lines))
		return
	}
	w.dropped = 0
}

func appendLine(b []byte, at time.Time, stream Stream, l Line) []byte {
	b = at.UTC().AppendFormat(b, TimeFormat)
	b = append(b, ' ')
	b = append(b, stream...)
	if l.Full {
		b = append(b, " F "...)
	} else {
		b = append(b, " P "...)
	}
	b = append(b, l.Text...)
	return append(b, '\n')
}

// append writes b whole or not at all: a write cut short by a full disk is
// taken back, so that every line in the file is a whole one.
func (w *Writer) append(b []byte) error {
	if w.fd < 0 {
		if err := w.open(); err != nil {
			return err
		}
	}
	// Also a file just opened: its rotation may have failed before.
	if w.size > 0 && w.size+int64(len(b)) > w.max {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	for off := 0; off < len(b); {
		n, err := unix.Write(w.fd, b[off:])
		if err == nil {
			off += n
			continue
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return errors.Join(err, unix.Ftruncate(w.fd, w.size))
	}
	w.size += int64(len(b))
	return nil
}

func (w *Writer) open() error {
	// O_NOFOLLOW: nobody but root can write the directory, but a gofer that
	// was taken over must not be led elsewhere by its own earlier self.
	fd, err := unix.Openat(w.dir, w.name, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	// Not fstat: the gofer's seccomp filter has only lseek.
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("measure log: %w", err)
	}
	w.fd, w.size = fd, size
	return nil
}

func (w *Writer) rotate() error {
	unix.Close(w.fd)
	w.fd = -1
	if err := unix.Renameat2(w.dir, w.name, w.dir, w.name+".1", 0); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	return w.open()
}

// Close closes the file.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// Pump copies one pipe to a Writer, line by line.
type Pump struct {
	pipe   *os.File
	w      *Writer
	stream Stream
	done   chan struct{}
}

// NewPump takes over the descriptor and joins it to the runtime's poller.
func NewPump(fd int, w *Writer, stream Stream) (*Pump, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("set pipe non-blocking: %w", err)
	}
	return &Pump{pipe: os.NewFile(uintptr(fd), string(stream)), w: w, stream: stream, done: make(chan struct{})}, nil
}

// Start begins to copy. Done is closed at the end of the pipe.
func (p *Pump) Start() { go p.run() }

// Done is closed when everything in the pipe was written and its last writer
// is gone.
func (p *Pump) Done() <-chan struct{} { return p.done }

// partialAfter is how long an unfinished line waits for its end: a prompt, or
// the dots of a progress, are to be seen.
const partialAfter = time.Second

func (p *Pump) run() {
	defer close(p.done)
	defer p.pipe.Close()
	var (
		buf   [maxLine]byte
		have  int  // bytes of an unfinished line at the start of buf
		open  bool // the last line that was written is not at its end
		lines []Line
	)
	for {
		n, err := p.pipe.Read(buf[have:])
		waited := have > 0
		have += n
		lines, have = split(buf[:], have, lines[:0])
		late := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case late:
			var l Line
			l, have = unfinished(buf[:], have)
			lines = append(lines, l)
		case err != nil && (have > 0 || ends(lines, open)):
			// The last line of an application that ends without a newline.
			lines = append(lines, Line{Text: append([]byte(nil), buf[:have]...), Full: true})
			have = 0
		}
		if len(lines) > 0 {
			p.w.Write(time.Now(), p.stream, lines)
			open = !lines[len(lines)-1].Full
		}
		if err != nil && !late {
			return
		}
		p.wait(have > 0, waited && len(lines) == 0)
	}
}

// wait bounds the next read if there is an unfinished line, from its first byte
// on: one that grows slowly is not kept back for ever.
func (p *Pump) wait(unfinished, already bool) {
	var at time.Time
	switch {
	case unfinished && already:
		return
	case unfinished:
		at = time.Now().Add(partialAfter)
	}
	// What has no deadlines has none: the line is seen when it ends.
	_ = p.pipe.SetReadDeadline(at)
}

// ends says whether the end of the pipe is the end of a line that has begun.
func ends(lines []Line, open bool) bool {
	if len(lines) > 0 {
		return !lines[len(lines)-1].Full
	}
	return open
}

// unfinished takes what there is of a line, up to the last whole character, and
// moves the rest to the front.
func unfinished(buf []byte, have int) (Line, int) {
	cut := cmp.Or(lastCut(buf[:have]), have) // 0: it does not become a character
	l := Line{Text: append([]byte(nil), buf[:cut]...)}
	return l, copy(buf, buf[cut:have])
}

// split cuts the first n bytes of buf into lines and moves the unfinished rest
// to the front. A buffer full without a newline becomes a partial line, cut
// between characters: each part is shown on a terminal by itself. The
// lines' texts are copies where the move would overwrite them.
func split(buf []byte, n int, lines []Line) ([]Line, int) {
	data := append([]byte(nil), buf[:n]...)
	start := 0
	for i, c := range data {
		if c == '\n' {
			lines = append(lines, Line{Text: data[start:i], Full: true})
			start = i + 1
		}
	}
	if len(data)-start == len(buf) {
		start = lastCut(data)
		lines = append(lines, Line{Text: data[:start]})
	}
	return lines, copy(buf, data[start:])
}

// lastCut is where to cut data that goes on, not in the middle of a character.
func lastCut(data []byte) int {
	for i := len(data) - 1; i > max(len(data)-utf8.UTFMax, 0); i-- {
		if utf8.RuneStart(data[i]) {
			if !utf8.FullRune(data[i:]) {
				return i
			}
			break
		}
	}
	return len(data)
}
