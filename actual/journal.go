// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
)

const (
	journalFile = "events.jsonl"
	journalOld  = "events.1.jsonl"
)

// journalMax is the size at which the journal is rotated; two are kept.
const journalMax = 4 << 20

// Event types, Kubernetes' words.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

// Event is something that happened to a sandbox or to the daemon.
type Event struct {
	At      time.Time `json:"at"`
	Type    string    `json:"type"`
	Sandbox string    `json:"sandbox,omitempty"`
	Reason  string    `json:"reason"` // of reasons.go
	Message string    `json:"message"`
	// Pass is the reconcile pass it came of, 0 if of none.
	Pass uint64 `json:"pass,omitempty"`
}

// Journal appends events to STATE/events.jsonl. It is the one file that is not
// replaced whole: a line is one write, a torn last line is passed over by
// readers, and losing the tail in a power cut loses no state.
type Journal struct {
	store *Store

	mu   sync.Mutex
	fd   int
	size int64
}

// OpenJournal opens the journal for the holder of the lock.
func (s *Store) OpenJournal() (*Journal, error) {
	j := &Journal{store: s, fd: -1}
	// On a full disk events are lost, and nothing else.
	if err := j.open(); err != nil && !atomicfile.NoSpace(err) {
		return nil, err
	}
	return j, nil
}

func (j *Journal) open() error {
	crashpoint.Before(crashpoint.JournalOpen)
	fd, err := unix.Openat(int(j.store.RootDir().Fd()), journalFile, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	crashpoint.After(crashpoint.JournalOpen)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err == nil && size > 0 {
		// A line torn by a crash must not swallow the next one.
		var last [1]byte
		if _, err = unix.Pread(fd, last[:], size-1); err == nil && last[0] != '\n' {
			crashpoint.Before(crashpoint.JournalMend)
			_, err = unix.Write(fd, []byte{'\n'})
			crashpoint.After(crashpoint.JournalMend)
			size++
		}
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("open journal: %w", err)
	}
	j.fd, j.size = fd, size
	return nil
}

// Append writes one event; its At is set if it is zero.
func (j *Journal) Append(e Event) error {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "") + "…"
	}
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	b = append(b, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.size > 0 && j.size+int64(len(b)) > journalMax {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	if j.fd < 0 {
		if err := j.open(); err != nil {
			return err
		}
	}
	crashpoint.Before(crashpoint.JournalAppend)
	n, err := unix.Write(j.fd, b)
	crashpoint.After(crashpoint.JournalAppend)
	if err != nil || n < len(b) {
		// A full disk: take back the part that was written.
		return errors.Join(fmt.Errorf("write event: %d of %d bytes: %w", n, len(b), cmp.Or(err, error(unix.ENOSPC))), unix.Ftruncate(j.fd, j.size))
	}
	j.size += int64(n)
	return nil
}

func (j *Journal) rotate() error {
	unix.Close(j.fd)
	j.fd = -1
	root := int(j.store.RootDir().Fd())
	err := crashpoint.Do(crashpoint.JournalRotate, func() error { return unix.Renameat(root, journalFile, root, journalOld) })
	if err != nil {
		return fmt.Errorf("rotate journal: %w", err)
	}
	return j.open()
}

// Close closes the journal.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fd < 0 {
		return nil
	}
	fd := j.fd
	j.fd = -1
	return unix.Close(fd)
}

// EventReader reads the journal, from its beginning and then whatever comes.
type EventReader struct {
	store *Store
	file  *os.File
	id    fileID
	buf   *bufio.Reader
	part  []byte
	long  bool // the line that is read is not one of ours: its rest is passed over
}

// maxEvent bounds a line of the journal as read, maxMessage the message in it as
// written: each byte of it may become six.
const (
	maxEvent   = 64 << 10
	maxMessage = 8 << 10
)

// ReadEvents returns a reader of the journal.
func (s *Store) ReadEvents() *EventReader { return &EventReader{store: s} }

// Next calls fn for every event that was not yet read. It returns when there
// is no more for now; call it again to follow.
func (r *EventReader) Next(fn func(Event) error) error {
	if r.file == nil {
		if err := r.readOld(fn); err != nil {
			return err
		}
	}
	for {
		if r.file != nil {
			if err := r.drain(fn); err != nil {
				return err
			}
		}
		changed, err := r.reopen()
		if err != nil || !changed {
			return err
		}
	}
}

func (r *EventReader) readOld(fn func(Event) error) error {
	f, err := openJournal(r.store, journalOld)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	old := &EventReader{file: f, buf: bufio.NewReaderSize(f, maxEvent)}
	return old.drain(fn)
}

// reopen opens the journal if it is not open or has been rotated away.
func (r *EventReader) reopen() (changed bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(r.store.RootDir().Fd()), journalFile, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at journal: %w", err)
	}
	if r.file != nil && r.id.ino == st.Ino && r.id.dev == st.Dev {
		return false, nil
	}
	f, err := openJournal(r.store, journalFile)
	if f == nil || err != nil {
		return false, err
	}
	r.Close()
	r.file, r.id, r.buf, r.part, r.long = f, idOf(&st), bufio.NewReaderSize(f, maxEvent), nil, false
	return true, nil
}

func openJournal(s *Store, name string) (*os.File, error) {
	fd, err := unix.Openat(int(s.RootDir().Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// drain reads whole lines; an unfinished one is kept for the next time.
func (r *EventReader) drain(fn func(Event) error) error {
	for {
		line, err := r.buf.ReadSlice('\n')
		r.part = append(r.part, line...)
		if len(r.part) > maxEvent {
			r.part, r.long = r.part[:0], true
		}
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			return nil // the end, for now
		}
		var e Event
		ours := !r.long && json.Unmarshal(r.part, &e) == nil && e.Reason != ""
		r.part, r.long = r.part[:0], false
		if ours {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

// Close ends the reading.
func (r *EventReader) Close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}
