// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/upgrade"
)

// Get returns the record of a name. All nil means that there is none. A Quarantined
// means that there is one which must not be acted on.
func (s *Store) Get(name string) (*Record, *Quarantined, error) {
	if !s.valid(name) {
		return nil, nil, fmt.Errorf("read record of %q: %w", name, errInvalidName)
	}
	rec, quarantined, _ := s.read(name)
	return rec, quarantined, nil
}

// read returns the record of a name, from the cache if its file is the same.
// exists is false if there is no record file.
func (s *Store) read(name string) (rec *Record, quarantined *Quarantined, exists bool) {
	quarantine := func(reason string, err error) (*Record, *Quarantined, bool) {
		return nil, &Quarantined{Name: name, Reason: reason, Message: err.Error()}, true
	}
	s.mu.Lock()
	c, ok := s.cache[name]
	s.mu.Unlock()
	if !ok && s.looks {
		if rec := s.readFirst(name); rec != nil {
			return rec, nil, true
		}
	}
	st, err := s.dirs.Stat(name + "/" + RecordFile)
	switch {
	case errors.Is(err, unix.ENOENT):
		rec, quarantined = s.decode(name) // not cached: there is no file to compare
		return rec, quarantined, rec != nil || quarantined != nil
	case err != nil:
		// An error is never absence: a second sandbox of the name would be
		// made beside the first.
		return quarantine(QuarantinedUnreadable, err)
	}
	id := idOf(&st)
	if ok && c.id == id {
		return c.rec, c.quarantined, true
	}
	rec, quarantined = s.decode(name)
	switch {
	case quarantined == nil && rec == nil:
		return nil, nil, false
	case quarantined != nil && quarantined.Reason == QuarantinedUnreadable:
		// What the system refused now it may give the next time, and the file
		// does not change by that.
		return nil, quarantined, true
	}
	s.keep(name, cached{id: id, rec: rec, quarantined: quarantined})
	return rec, quarantined, true
}

func (s *Store) keep(name string, c cached) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache[name] = c
}

// foreign refuses a record of the other kind: it would be taken for one that nobody
// wants, or that never came to be.
func (s *Store) foreign(rec *Record) error {
	switch {
	case (rec.App().OCI != nil) == s.containers:
		return nil
	case s.containers:
		return errors.New("it is the sandbox of a manifest, and this is the state of containers")
	}
	return errors.New("it is a container of an OCI client, and this is the state of a daemon")
}

func (s *Store) decode(name string) (*Record, *Quarantined) {
	quarantine := func(reason string, err error) (*Record, *Quarantined) {
		return nil, &Quarantined{Name: name, Reason: reason, Message: err.Error()}
	}
	dir, err := s.dir(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // removed meanwhile
	case err != nil:
		return quarantine(QuarantinedUnreadable, err)
	}
	defer dir.Close()
	rec, _, err := readRecord(dir, RecordFile, name)
	if errors.Is(err, unix.ENOENT) {
		if err = missing(dir); errors.Is(err, errNoRecord) {
			// Other files are made after the record: where they are, it was written
			// meanwhile, or is lost.
			if rec, _, err = readRecord(dir, RecordFile, name); errors.Is(err, unix.ENOENT) {
				err = errNoRecord
			}
		}
		if err != nil && !s.is(name, dir) {
			return nil, nil // it is being removed
		}
	}
	var damage *damageError
	switch {
	case err == nil && rec == nil:
		return nil, nil // a create died before its first Put
	case err == nil:
		if err := s.foreign(rec); err != nil {
			return quarantine(QuarantinedForeign, err)
		}
		return rec, nil
	case errors.Is(err, upgrade.ErrNewer):
		return quarantine(QuarantinedNewer, err)
	case errors.As(err, &damage), errors.Is(err, errNoRecord):
		return quarantine(QuarantinedCorrupt, err)
	}
	return quarantine(QuarantinedUnreadable, err)
}

// is says whether dir is (still) the directory of a name.
func (s *Store) is(name string, dir fsys.Dir) bool {
	ours, err := dir.Self()
	if err != nil {
		return false
	}
	now, err := s.dirs.Stat(name)
	return err == nil && now.Ino == ours.Ino && now.Dev == ours.Dev
}

// List returns every record that can be read, and says of every other why not.
// One bad record never hides the rest.
func (s *Store) List() (*Listing, error) {
	names, err := s.names()
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	l := &Listing{Records: make([]*Record, 0, len(names))}
	for i, r := range s.readAll(names) {
		switch {
		case r.quarantined != nil:
			l.Quarantined = append(l.Quarantined, *r.quarantined)
		case r.exists:
			l.Records = append(l.Records, r.rec)
		default:
			l.Aborted = append(l.Aborted, names[i])
		}
	}
	s.forget(names)
	return l, nil
}

// readAll reads the records of the names, on all processors.
func (s *Store) readAll(names []string) []readResult {
	out := make([]readResult, len(names))
	s.mu.Lock()
	unknown := max(0, len(names)-len(s.cache))
	s.mu.Unlock()
	each(len(names), unknown, func(i int) {
		if r, n := &out[i], names[i]; s.valid(n) {
			r.rec, r.quarantined, r.exists = s.read(n)
		} else {
			r.quarantined = &Quarantined{Name: n, Reason: QuarantinedForeign, Message: errInvalidName.Error()}
		}
	})
	return out
}

// each calls fn with 0 to n-1, on all processors if that is worth it. So many of the calls
// are costly; to see that a record did not change takes less time than to wake a thread.
func each(n, costly int, fn func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
			fn(int(i))
		}
	}
	for range min(runtime.GOMAXPROCS(0)-1, costly/16+n/1000) {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// names lists the entries of the sandboxes directory, sorted.
func (s *Store) names() ([]string, error) {
	names, err := s.dirs.Names(0)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// forget drops cached records of names that are gone. names is sorted.
func (s *Store) forget(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) <= len(names) {
		return
	}
	for n := range s.cache {
		if _, ok := slices.BinarySearch(names, n); !ok {
			delete(s.cache, n)
		}
	}
}
