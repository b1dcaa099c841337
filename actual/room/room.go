// SPDX-License-Identifier: Apache-2.0

// Package room says how much may be written to the disk of the state directory: by what is
// large, as pulls, restores and backups, and by records and logs.
package room

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// What a pull or a restore keeps free on the disk of the state directory, so that what runs
// can still be stopped and removed: a tenth of a small disk.
const (
	keptBytes = 1 << 30
	keptFiles = 1000
)

// ErrNone says that something was ended, since it would take what is kept free.
var ErrNone = errors.New("not enough room on the disk of the state directory: the rest is kept free, so that sandboxes can be stopped and removed")

// Of is how many bytes and files a pull or a restore may still add to the disk that dir is
// on. Both may be negative.
func Of(dir *os.File) (bytes, files int64, err error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(dir.Fd()), &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("look at the disk: %w", err)
		}
		break
	}
	bytes = int64(st.Bavail)*st.Bsize - min(keptBytes, int64(st.Blocks)*st.Bsize/10)
	files = math.MaxInt64
	if st.Files > 0 { // some file systems do not count them
		files = int64(st.Ffree) - min(keptFiles, int64(st.Files)/10)
	}
	return bytes, files, nil
}

// lookEvery is how many bytes are written between two looks at the disk.
const lookEvery = 256 << 10

// Gauge looks now and then whether what is written to a disk leaves free what is kept. Others
// write there too, and names, directories and attributes take room that nobody has counted.
type Gauge struct {
	dir     *os.File
	unasked int64 // bytes that may be written until the next look
}

// NewGauge looks at the disk that dir is on.
func NewGauge(dir *os.File) *Gauge { return &Gauge{dir: dir} }

// Look returns ErrNone if nothing more may be written.
func (g *Gauge) Look() error {
	g.unasked = lookEvery
	bytes, files, err := Of(g.dir)
	if err == nil && (bytes < lookEvery || files < 1) {
		err = ErrNone
	}
	return err
}

// Grow is called before n bytes are written.
func (g *Gauge) Grow(n int) error {
	if g.unasked -= int64(n); g.unasked >= 0 {
		return nil
	}
	return g.Look()
}
