// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// The removal of a volume that something writes into ends, and says that it is not over. The
// volume is gone by its name, and what is left is where the daemon removes it.
func TestRemoveBesideWriter(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(dir int, n int) error{
		"files":       func(dir, n int) error { return unix.Mknodat(dir, fmt.Sprintf("f%d", n), unix.S_IFREG, 0) },
		"directories": func(dir, n int) error { return unix.Mkdirat(dir, fmt.Sprintf("d%d", n), 0o700) },
	} {
		dir, path := state(t)
		v, err := sizedStore(t, dir, newDisk()).use(t.Context(), "a", owner{mode: 0o755}, "web", 0)
		must(t, err)
		v.Close()
		top := filepath.Join(path, "a", DataDir, "top")
		must(t, os.Mkdir(top, 0o700))
		// More than a few passes take, made before: that a removal is slower than a writer
		// must not be left to the machine.
		for n := range 3 * removeAtOnce {
			must(t, os.WriteFile(filepath.Join(path, "a", DataDir, fmt.Sprint(n)), nil, 0o600))
		}
		fd, err := unix.Open(top, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		stop := make(chan struct{})
		var all sync.WaitGroup
		for w := range 2 {
			all.Go(func() {
				for n := w; ; n += 2 {
					select {
					case <-stop:
						return
					default:
					}
					if write(fd, n) != nil {
						return // its directory was removed
					}
				}
			})
		}
		s := sizedStore(t, dir, newDisk())
		v, err = s.lockThere(t.Context(), "a", unix.LOCK_EX)
		must(t, err)
		trash, err := openPrivate(dir, actual.TrashDir)
		must(t, err)
		must(t, v.moveTo(trash))
		if err := empty(t.Context(), trash, v.trashPrefix(), 2); !errors.Is(err, ErrWritten) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Look("a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		close(stop)
		all.Wait()
		unix.Close(fd)
		// The same prefix finds the rest, in as many passes as there are files for.
		must(t, empty(t.Context(), trash, v.trashPrefix(), mostPasses))
		if names, err := trash.Readdirnames(-1); len(names) > 0 {
			t.Errorf("%s: %q %v", name, names, err)
		}
		v.Close()
		trash.Close()
	}
}
