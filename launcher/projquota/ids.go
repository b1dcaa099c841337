// SPDX-License-Identifier: Apache-2.0

package projquota

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
)

// IDsFile of a state directory has the project that is given next. It is written before a
// project is used: none is ever given twice, whatever is killed.
const IDsFile = "projects.json"

// mostIDs bounds the file.
const mostIDs = 1 << 16

type ids struct {
	Next uint32 `json:"next"`
}

// Next is a project that this state directory has never given, and that nobody else uses, which
// free tells as Free does. Only one caller at a time may ask.
func Next(state *os.File, free func(dir *os.File, from uint32) (uint32, error)) (uint32, error) {
	id, err := free(state, lastIDs(state).Next)
	if err != nil {
		return 0, err
	}
	b, err := json.Marshal(ids{Next: id + 1})
	if err == nil {
		err = crashpoint.Do(crashpoint.VolumeProjects, func() error { return atomicfile.Write(state, IDsFile, b, 0o600) })
	}
	return id, err
}

// lastIDs is what is on record. Where that is lost a place is chosen that another state
// directory of the same file system has hardly chosen too.
func lastIDs(state *os.File) ids {
	var p ids
	f, err := dirfd.Open(int(state.Fd()), IDsFile, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_XDEV)
	if err == nil {
		defer f.Close()
		b, rerr := dirfd.ReadRegular(f, mostIDs, mostIDs)
		if rerr == nil && json.Unmarshal(b, &p) == nil && ValidID(p.Next) {
			return p
		}
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // it does not fail
	return ids{Next: 1<<24 + binary.NativeEndian.Uint32(random[:])>>2}
}
