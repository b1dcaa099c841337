// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/setup"
)

// racerTime is how long racers run: `make racer` sets it.
func racerTime(t *testing.T, short time.Duration) time.Duration {
	t.Helper()
	v := os.Getenv("SANDBOXCTL_RACER")
	if v == "" {
		return short
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A user who may write below an allowed path swaps directories and files there for
// links that lead out of it, as fast as two processors can. What is opened is
// what was there, or nothing.
func TestRacerOpen(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, outside := filepath.Join(work, "allowed"), filepath.Join(work, "outside")
	in := func(p string) string { return filepath.Join(root, p) }
	for _, d := range []string{in("a/sub"), in("b/sub"), filepath.Join(outside, "sub")} {
		must(os.MkdirAll(d, 0o755))
	}
	must(os.WriteFile(in("file"), nil, 0o644))
	must(os.WriteFile(filepath.Join(outside, "secret"), nil, 0o644))
	must(os.Symlink(outside, in("link")))
	must(os.Symlink("../outside/secret", in("filelink")))
	canary := map[uint64]string{}
	for _, p := range []string{outside, filepath.Join(outside, "sub"), filepath.Join(outside, "secret")} {
		var st unix.Stat_t
		must(unix.Stat(p, &st))
		canary[st.Ino] = p
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, swaps := range [][2]string{{"a", "link"}, {"file", "filelink"}, {"a", "b"}} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := unix.Renameat2(unix.AT_FDCWD, in(swaps[0]), unix.AT_FDCWD, in(swaps[1]), unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	opened, refused := 0, 0
	length := racerTime(t, time.Second)
	// Where the machine is slow, until both have been seen.
	for began := time.Now(); time.Since(began) < length || (opened == 0 || refused == 0) && time.Since(began) < time.Minute; {
		for _, p := range []string{"a", "a/sub", "file"} {
			s := setup.Source{Path: in(p), Allowed: root}
			f, err := OpenSource(&s)
			if err != nil {
				if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
					t.Fatalf("%s: %v", p, err)
				}
				refused++
				continue
			}
			var st unix.Stat_t
			must(unix.Fstat(int(f.Fd()), &st))
			if name, bad := canary[st.Ino]; bad {
				t.Fatalf("%s led to %s", p, name)
			}
			opened++
			f.Close()
		}
	}
	t.Logf("%d opened, %d refused", opened, refused)
	if opened == 0 || refused == 0 {
		t.Errorf("%d opened, %d refused: nothing was raced with", opened, refused)
	}
}
