// SPDX-License-Identifier: Apache-2.0

// Package inforce has on record which spec.network is in force for each sandbox on a
// network.
//
// Ports, rules and names of a running sandbox change with its manifest, without a start. The
// record of the sandbox keeps the manifest of the last start. If that were all, a manifest
// that becomes invalid, or a daemon that is started while it is, would bring back what was
// taken away since: a port, or a destination that is forbidden by now. So what is in force
// is in a file beside the record, where it differs, and is written before the rules are
// installed. It is removed with the directory of the sandbox.
package inforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/desired/networks"
)

// File is the file in a sandbox's directory.
const File = "network.json"

// version of the file.
const version = 1

// maxFile bounds it: a record, which has all of the manifest, is not larger.
const maxFile = actual.MaxRecord

// Networks are those of the sandboxes of one state directory. It is for the holder of the
// lock, and for one caller at a time.
type Networks struct {
	store *actual.Store
	// known is what the files and records say.
	known map[string]known
}

// known is what is on record of one attempt of a sandbox: another one has a record of its own.
type known struct {
	uid     string
	attempt int64
	network *networks.Network
}

// file is what one has. It says nothing of another sandbox of the name, nor of one that was
// started with another manifest since, which its record has.
type file struct {
	Version    int               `json:"version"`
	UID        string            `json:"uid"`
	Generation int64             `json:"generation"`
	Network    *networks.Network `json:"network"`
}

// New returns what is in force in a state directory. Nothing is read yet.
func New(store *actual.Store) *Networks { return &Networks{store: store, known: map[string]known{}} }

// Of returns what is in force for each of the records: what manifests say now, or else what
// they said last. What was not on record is, when it returns, but for the sandboxes of the
// error; those have the result too, so that the rules of none of them wait for a disk.
func (n *Networks) Of(records []*actual.Record, wanted map[string]*networks.Network) (map[string]*networks.Network, error) {
	out := make(map[string]*networks.Network, len(records))
	var errs []error
	for _, r := range records {
		k, err := n.recall(r)
		now := wanted[r.Name]
		switch {
		case now == nil && err != nil:
			// Nobody knows what it may reach.
			out[r.Name] = nothing()
			errs = append(errs, err)
			continue
		case now == nil:
			out[r.Name] = k.network
			continue
		}
		out[r.Name] = now
		if err != nil || !same(k.network, now) {
			if err := n.put(r, now); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		n.known[r.Name] = known{r.UID, r.Attempt, now}
	}
	for name := range n.known {
		if out[name] == nil {
			delete(n.known, name)
		}
	}
	return out, errors.Join(errs...)
}

// nothing is the network of a sandbox that reaches nobody, and is reached by nobody.
func nothing() *networks.Network {
	return &networks.Network{Egress: &networks.Reach{Default: networks.Deny}, Ingress: &networks.Reach{Default: networks.Deny}}
}

// Recorded is what a record says: that of the last start.
func Recorded(r *actual.Record) *networks.Network {
	var said struct {
		Spec struct {
			Network networks.Network `json:"network"`
		} `json:"spec"`
	}
	// It is not checked again: what a later version no longer takes runs on.
	if err := json.Unmarshal(r.Spec, &said); err != nil {
		return nothing()
	}
	said.Spec.Network.Fill()
	return &said.Spec.Network
}

// recall returns what is on record.
func (n *Networks) recall(r *actual.Record) (known, error) {
	if k, ok := n.known[r.Name]; ok && k.uid == r.UID && k.attempt == r.Attempt {
		return k, nil
	}
	k := known{r.UID, r.Attempt, nil}
	f, err := n.read(r.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return k, fmt.Errorf("read which network is in force: %s/sandboxes/%s/%s: %w", n.store.Path(), r.Name, File, err)
	case f.UID == r.UID && f.Generation == r.Generation:
		k.network = f.Network
	}
	if k.network == nil {
		k.network = Recorded(r)
	}
	n.known[r.Name] = k
	return k, nil
}

func (n *Networks) read(name string) (*file, error) {
	dir, err := n.store.Dir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), File, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	o := os.NewFile(uintptr(fd), File)
	defer o.Close()
	b, err := dirfd.ReadRegular(o, 0, maxFile)
	if err != nil {
		return nil, err
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if v.Version != version {
		return nil, fmt.Errorf("its version is %d, expected %d", v.Version, version)
	}
	f := new(file)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if f.Network == nil {
		return nil, errors.New("it names no network")
	}
	f.Network.Fill()
	return f, nil
}

// put writes down what is about to be in force.
func (n *Networks) put(r *actual.Record, now *networks.Network) error {
	fail := func(err error) error {
		return fmt.Errorf("record which network of %s is in force: %w", r.Name, err)
	}
	b, err := json.Marshal(file{version, r.UID, r.Generation, now})
	if err != nil {
		return fail(err)
	}
	if len(b) > maxFile {
		return fail(fmt.Errorf("%d bytes, at most %d are possible", len(b), maxFile))
	}
	dir, err := n.store.Dir(r.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was removed meanwhile
	}
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	err = crashpoint.Do(crashpoint.InForcePut, func() error { return atomicfile.Write(dir, File, append(b, '\n'), 0o600) })
	if err != nil {
		return fail(err)
	}
	return nil
}

// same compares what two say. One may come from a file, which knows no empty list.
func same(a, b *networks.Network) bool {
	if a == b || reflect.DeepEqual(a, b) {
		return true
	}
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}
