// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// host is where a host says which zone it has.
type host struct {
	localtime, timezone string
}

var hostFiles = host{"/etc/localtime", "/etc/timezone"}

// OfHost returns the zone that the host has now.
func OfHost() (*Zone, error) { return hostFiles.zone() }

// maxLinks is how many links /etc/localtime may lead through to the database.
const maxLinks = 8

// zone is the one of the name that localtime is a link to. Its data are looked up by that
// name: also where they are missing on the host. A copy of the data has the name in
// timezone, if that is right.
func (h host) zone() (*Zone, error) {
	for at, n := h.localtime, 0; n < maxLinks; n++ {
		target, err := os.Readlink(at)
		if err != nil {
			break
		}
		if _, name, ok := strings.Cut(target, "zoneinfo/"); ok {
			if z, err := Load(name); err == nil {
				return z, nil
			}
			break
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(at), target)
		}
		at = target
	}
	f, err := os.Open(h.localtime)
	if errors.Is(err, fs.ErrNotExist) {
		z, err := Load("UTC") // as the C library has it
		if err == nil {
			z.Assumed = true
		}
		return z, err
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readZone(f)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: h.localtime, Err: err}
	}
	if b, err := os.ReadFile(h.timezone); err == nil {
		if z, err := Load(strings.TrimSpace(string(b))); err == nil && bytes.Equal(z.Data, data) {
			return z, nil
		}
	}
	return &Zone{Data: data}, nil
}

// ID is another one when the zone has another name or other rules. An update of the
// database that does not change them leaves it as it is. It is "" where the host tells none:
// who makes the link again removes it first.
func (z *Zone) ID() string {
	if z.Assumed {
		return ""
	}
	sum := sha256.Sum256(z.Data)
	return z.Name + ":" + hex.EncodeToString(sum[:8])
}
