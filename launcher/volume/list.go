// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
)

// Entry is a volume as it was found.
type Entry struct {
	Meta
	// Problem is what is wrong with it, "" if nothing is.
	Problem string `json:"problem,omitempty"`
	// Ownership is how far a change of its owner is, nil if there is none under way.
	Ownership *Progress `json:"ownership,omitempty"`
}

// mostVolumes bounds how many are looked at.
const mostVolumes = 100_000

// names are what is in the directory of volumes, sorted.
func (s *Store) names() ([]string, error) {
	again, err := openDir(s.dir, ".", unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	defer again.Close()
	names, err := untrusted.List(int(again.Fd()), mostVolumes)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// List are the volumes, by name. It takes no lock.
func (s *Store) List() ([]Entry, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, name := range names {
		e, err := s.Look(name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			e = &Entry{Meta: Meta{Name: name}, Problem: err.Error()}
		}
		out = append(out, *e)
	}
	return out, nil
}

// Unfinished are the volumes that a program which made or restored them has left, and that
// nobody is at work on.
func (s *Store) Unfinished(ctx context.Context) (out []string, err error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		v, err := s.lock(ctx, name, unix.LOCK_SH, 0)
		if v == nil || err != nil {
			continue // at work, or no volume of ours
		}
		left, err := v.unfinished()
		v.Close()
		if err == nil && left {
			out = append(out, name)
		}
	}
	return out, nil
}

// Look looks at one volume. It takes no lock.
func (s *Store) Look(name string) (*Entry, error) {
	dir, err := s.open(name)
	if err != nil {
		return nil, err
	}
	v := &Volume{Meta: Meta{Name: name}, store: s, dir: dir}
	defer v.Close()
	found, err := v.readMeta()
	if err == nil && !found {
		return &Entry{Meta: v.Meta, Problem: errIncomplete.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := v.Data(unix.O_PATH)
	if err != nil {
		return nil, err
	}
	return &Entry{Meta: v.Meta, Ownership: v.progress()}, data.Close()
}

// Stamp tells two versions of what is on record of a volume apart. The zero value is none.
type Stamp [4]int64

// Stamp is that of a volume now, zero if nothing is on record of it. It opens nothing.
func (s *Store) Stamp(name string) Stamp {
	var st unix.Stat_t
	if err := unix.Fstatat(int(s.dir.Fd()), name+"/"+metaFile, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stamp{}
	}
	return Stamp{int64(st.Ino), st.Size, st.Ctim.Nano(), st.Mtim.Nano()} // a change is another file
}

// Usage is how much a volume holds.
type Usage struct {
	// Bytes are those that it takes on the disk, Files how many files and directories
	// there are.
	Bytes int64 `json:"bytes"`
	Files int64 `json:"files"`
	// Partial says that there is more: not all of it was looked at.
	Partial bool `json:"partial,omitempty"`
}

// Usage is how much a volume holds. What its sandboxes do meanwhile may be counted or not.
func (s *Store) Usage(ctx context.Context, name string) (u Usage, err error) {
	v, err := s.Find(ctx, name, unix.LOCK_SH)
	if err != nil {
		return u, err
	}
	defer v.Close()
	data, err := v.Data(unix.O_RDONLY)
	if err != nil {
		return u, err
	}
	defer data.Close()
	seen := map[uint64]bool{}
	err = walk(ctx, data, func(e *entry) error {
		if e.stat.Mode&unix.S_IFMT != unix.S_IFDIR && e.stat.Nlink > 1 {
			if seen[e.stat.Ino] {
				return nil
			}
			if len(seen) < mostLinked {
				seen[e.stat.Ino] = true
			}
		}
		u.Bytes += e.stat.Blocks * 512
		u.Files++
		return nil
	})
	if errors.Is(err, errTooDeep) {
		u.Partial, err = true, nil
	}
	return u, err
}

// mostLinked bounds how many files with several names are told apart.
const mostLinked = 1_000_000
