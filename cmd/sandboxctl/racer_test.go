// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/reconcile/reconciletest"
)

// Sandboxes are created again and again with volumes whose paths somebody swaps
// all the time for links out of what the policy allows. None ever reads or
// writes there. `make racer` does it for a minute.
func TestRacer(t *testing.T) {
	requireHost(t)
	length := 5 * time.Second
	if v := os.Getenv("SANDBOXCTL_RACER"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		must(t, err)
	}
	work := t.TempDir()
	root, outside := filepath.Join(work, "allowed"), filepath.Join(work, "outside")
	in := func(p string) string { return filepath.Join(root, p) }
	for _, d := range []string{in("a/sub"), in("b/sub"), filepath.Join(outside, "sub")} {
		must(t, os.MkdirAll(d, 0o755))
	}
	const inside, canary = "what is allowed", "CANARY"
	for _, f := range []string{in("a/data"), in("a/sub/data"), in("b/data"), in("b/sub/data"), in("file")} {
		must(t, os.WriteFile(f, []byte(inside), 0o644))
	}
	for _, f := range []string{"data", "sub/data", "file"} {
		must(t, os.WriteFile(filepath.Join(outside, f), []byte(canary), 0o644))
	}
	must(t, os.Symlink(outside, in("link")))
	must(t, os.Symlink("../outside/file", in("filelink")))
	must(t, os.Symlink("../../outside/sub", in("a/sublink")))
	before := tree(t, outside)

	// By descriptors, so that the racers themselves never go through a link.
	dirs := map[string]*os.File{}
	for name, p := range map[string]string{"root": root, "a": in("a"), "b": in("b")} {
		f, err := os.Open(p)
		must(t, err)
		defer f.Close()
		dirs[name] = f
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	type swap struct{ dirA, a, dirB, b string }
	for _, swaps := range [][]swap{
		{{"root", "a", "root", "link"}, {"root", "a", "root", "b"}},
		{{"root", "file", "root", "filelink"}, {"a", "sub", "a", "sublink"}, {"a", "sub", "b", "sub"}},
	} {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				s := swaps[n%len(swaps)]
				if err := unix.Renameat2(int(dirs[s.dirA].Fd()), s.a, int(dirs[s.dirB].Fd()), s.b, unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)

	store, err := actual.OpenStore(filepath.Join(work, "state"))
	must(t, err)
	defer store.Close()
	l, err := launcher.New(launcher.Options{
		Store: store, SentryPath: filepath.Join(binDir, companion.SentryName), GoferPath: filepath.Join(binDir, companion.GoferName), Policy: allowing(t, root),
	})
	must(t, err)
	ran, refused := 0, 0
	// Where the machine is slow, until both have been seen.
	for began := time.Now(); time.Since(began) < length || (ran == 0 || refused == 0) && time.Since(began) < time.Minute; {
		said, err := raced(t, l, store, in)
		switch {
		case err != nil && (errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)):
			refused++
		case err != nil:
			t.Fatal(err)
		case strings.Contains(said, canary):
			t.Fatalf("a sandbox has read what is outside of the allowed path: %q", said)
		case !strings.Contains(said, inside):
			t.Fatalf("the sandbox read nothing: %q", said)
		default:
			ran++
		}
		if now := tree(t, outside); now != before {
			t.Fatalf("a sandbox has written outside of the allowed path: %s, before %s", now, before)
		}
	}
	t.Logf("%d sandboxes ran, %d were refused", ran, refused)
	if ran == 0 || refused == 0 {
		t.Errorf("%d sandboxes ran, %d were refused: nothing was raced with", ran, refused)
	}
}

// raced runs a sandbox that reads and writes whatever its volumes are, to its
// end, and returns what it said.
func raced(t *testing.T, l *launcher.Launcher, store *actual.Store, in func(string) string) (string, error) {
	t.Helper()
	e := reconciletest.Entry("raced", "sh", func(s *desired.Spec) {
		s.Args = []string{"-c", "cat /v/data /s/data /f; for d in /v /s; do echo written > $d/$$.new; done; echo written >> /f; true"}
		s.RestartPolicy = desired.RestartNever
		s.Volumes = []desired.Volume{
			{Name: "v", MountPath: "/v", HostPath: in("a")}, {Name: "s", MountPath: "/s", HostPath: in("a/sub")}, {Name: "f", MountPath: "/f", HostPath: in("file")},
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err := l.Create(ctx, e, nil, "")
	rec, _, gerr := store.Get("raced")
	must(t, gerr)
	said := ""
	if err == nil {
		p, operr := process.Open(*rec.Sentry)
		if operr == nil {
			must(t, p.Wait(ctx))
			p.Close()
		}
	}
	must(t, l.Destroy(ctx, "raced", actual.Ending{Reason: "TestOver"}))
	if err == nil {
		b, rerr := os.ReadFile(filepath.Join(store.Path(), "sandboxes", "raced", sandboxlog.Dir, strconv.FormatInt(rec.Attempt, 10), "app.log"))
		must(t, rerr)
		said = string(b)
	}
	must(t, l.Forget(ctx, "raced"))
	return said, err
}

// tree is everything below a directory, with contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	must(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s ", p)
		if e.Type().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%q ", b)
		}
		return nil
	}))
	return out.String()
}
