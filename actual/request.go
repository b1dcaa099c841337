// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
)

// Kinds of a Request.
const (
	RequestRestart = "restart"
	RequestApprove = "approve"
	RequestRepair  = "recover" // on disk; the verb was called so
	// RequestRemove orders the removal of a sandbox whose manifest was removed by the
	// same command.
	RequestRemove = "remove"
)

// maxRequest bounds a request file: an approval lists names.
const maxRequest = 2 << 20

// requestName is the file of a request; a newer request of the same kind for
// the same sandbox replaces the older.
func requestName(r *Request) (string, error) {
	switch {
	case (r.Kind == RequestRestart || r.Kind == RequestRepair || r.Kind == RequestRemove) && ValidName(r.Name):
		return r.Kind + "." + r.Name + ".json", nil
	case r.Kind == RequestApprove && r.Name == "":
		return r.Kind + ".json", nil
	}
	return "", fmt.Errorf("request %q for %q is not valid", r.Kind, r.Name)
}

// PutRequest leaves a request for the daemon. Any process that may write the
// state directory may call it.
func (s *Store) PutRequest(r Request) error {
	name, err := requestName(&r)
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	dir, err := s.requests()
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	if err := dir.Lock(requestPatience); err != nil {
		return fmt.Errorf("leave request: lock requests: %w", err)
	}
	// It may be what frees the disk.
	if err := s.write(dir, name, append(b, '\n'), true); err != nil {
		return fmt.Errorf("leave request: %w", err)
	}
	return nil
}

// The directory of requests is locked while they are left and dropped:
// requestPatience is how long PutRequest waits for others that leave or drop
// requests, which takes each of them milliseconds.
const requestPatience = 10 * time.Second

// DropRequest removes a request that has been carried out, unless it has been
// replaced by a newer one. It waits for nobody: while somebody else leaves a
// request it does nothing, and is to be called again.
func (s *Store) DropRequest(r Request) error {
	// What carried it out may be in the page cache only: the one who wrote it was
	// killed before the sync, failed in it, or is about to. A power cut must not
	// take that back and leave no request to do it again.
	if err := s.syncDone(r.Name); err != nil {
		return fmt.Errorf("drop request: %w", err)
	}
	if err := s.removeRequest(&r, 0); !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	return nil
}

// WithdrawRequest removes a request that nobody is to carry out any more, unless
// it has been replaced by a newer one. When it returns nil, the next look of the
// daemon does not find it.
func (s *Store) WithdrawRequest(r Request) error {
	return s.removeRequest(&r, requestPatience)
}

// removeRequest removes a request of this token, and waits for the lock at most for the
// time given. A request that is left between the look and the removal would be lost.
func (s *Store) removeRequest(r *Request, patience time.Duration) error {
	name, err := requestName(r)
	if err != nil {
		return err
	}
	dir, err := s.requests()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Lock(patience); err != nil {
		return fmt.Errorf("drop request: lock requests: %w", err)
	}
	now, err := readRequest(dir, name)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && now.Token != r.Token) {
		return nil
	}
	err = crashpoint.Do(crashpoint.RequestDrop, func() error { return atomicfile.In{Dir: dir}.Remove(name) })
	if err != nil {
		return fmt.Errorf("drop request: %w", err)
	}
	return nil
}

// syncDone forces the record of a name to disk, or that there is none, or of no
// name which records there are.
func (s *Store) syncDone(name string) error {
	if name != "" {
		dir, err := s.dir(name)
		switch {
		case err == nil:
			defer dir.Close()
			return os.NewSyscallError("fsync", dir.Sync())
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return os.NewSyscallError("fsync", s.dirs.Sync())
}

// Requests returns the requests that wait, sorted by kind and name. A file
// that is not a request is passed over: it asks for nothing.
func (s *Store) Requests() ([]Request, error) {
	dir, err := s.requests()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Names(0)
	if err != nil {
		return nil, fmt.Errorf("list requests: %w", err)
	}
	if len(names) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	var out []Request
	for _, n := range names {
		if !strings.HasSuffix(n, ".json") || strings.HasPrefix(n, ".") {
			continue
		}
		if r, err := readRequest(dir, n); err == nil {
			out = append(out, *r)
		}
	}
	return out, nil
}

// RequestsDir opens the directory of requests, for a watch on it.
func (s *Store) RequestsDir() string { return s.path + "/" + requestsDir }

func (s *Store) requests() (fsys.Dir, error) {
	d, err := s.root.OpenDir(requestsDir)
	if err != nil {
		return nil, fmt.Errorf("open requests: %w", err)
	}
	return d, nil
}

func readRequest(dir fsys.Dir, name string) (*Request, error) {
	b, err := readRegular(dir, name, maxRequest)
	if err != nil {
		return nil, err
	}
	return decodeRequest(name, b)
}

// decodeRequest reads the content of the file of a request.
func decodeRequest(name string, b []byte) (*Request, error) {
	var r Request
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("read request %s: %w", name, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read request %s: something follows it", name)
	}
	if want, err := requestName(&r); err != nil || want != name {
		return nil, fmt.Errorf("read request %s: it is not what its name says", name)
	}
	return &r, nil
}
