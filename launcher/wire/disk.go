// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// DiskFile is a file that a sentry keeps something of its sandbox in, on the disk of the
// state directory, and how much that may be. It is one value of FlagDisk.
type DiskFile struct {
	FD   int
	Size int64
}

// String gives FD:SIZE.
func (d DiskFile) String() string { return fmt.Sprintf("%d:%d", d.FD, d.Size) }

// chunk is what gVisor makes such a file longer by.
const chunk = 1 << 30

// Limit is how long the file may become. Space that is free in it may be in pieces that are
// too small for what is written next, so that it is longer than Size; without a bound a
// sentry that was taken over could fill the disk.
func (d DiskFile) Limit() int64 {
	size := min(d.Size, math.MaxInt64/4)
	return (2*size+chunk-1)/chunk*chunk + chunk
}

// InPages is the size in whole pages, which is the most that a guest can have.
func (d DiskFile) InPages() int64 {
	const page = 4 << 10
	return (min(d.Size, math.MaxInt64-page) + page - 1) / page * page
}

// DiskFiles are the values of FlagDisk. They are a flag.Value.
type DiskFiles []DiskFile

// String is for messages.
func (d *DiskFiles) String() string {
	var out []string
	for _, f := range *d {
		out = append(out, f.String())
	}
	return strings.Join(out, ",")
}

// Get is for gVisor's flag package.
func (d *DiskFiles) Get() any { return d }

// Set adds one.
func (d *DiskFiles) Set(s string) error {
	fd, size, _ := strings.Cut(s, ":")
	f, err := strconv.ParseUint(fd, 10, 31)
	if err != nil {
		return fmt.Errorf("expected FD:SIZE, got %q", s)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n <= 0 {
		return fmt.Errorf("expected FD:SIZE, got %q", s)
	}
	*d = append(*d, DiskFile{FD: int(f), Size: n})
	return nil
}
