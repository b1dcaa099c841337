// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer/sandboxlog"
)

// logsHost is a store with one sandbox that has run once.
func logsHost(t *testing.T) (l *Keeper, dir *os.File, path string) {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.Claim("web"); err != nil {
		t.Fatal(err)
	}
	if dir, err = store.Dir("web"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return &Keeper{Store: store, Log: slog.New(slog.DiscardHandler)}, dir, filepath.Join(store.Path(), "sandboxes", "web", sandboxlog.Dir)
}

// ends fails the test if something blocks.
func ends(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s blocks", what)
	}
}

// What the gofer of an attempt has put into its log directory keeps no later
// attempt from starting, no reader from ending, and leads nobody elsewhere.
func TestHostileLogs(t *testing.T) {
	t.Parallel()
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("2026-01-02T03:04:05Z stdout F secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func(p string) error{
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"socket":    func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) },
		"device":    func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
		"directory": func(p string) error { return os.MkdirAll(p+"/a/b/c/d", 0o700) },
		"link":      func(p string) error { return os.Symlink(canary, p) },
		"endless":   func(p string) error { return os.Symlink("/dev/zero", p) },
		"hard link": func(p string) error { return os.Link(canary, p) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, dir, path := logsHost(t)
			for attempt := int64(1); attempt < 5; attempt++ {
				ends(t, "to prepare an attempt", func() {
					logs, err := l.Prepare(dir, "web", attempt, 0, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer logs.Close()
					f, err := Create(logs, GoferFile)
					if err != nil {
						t.Fatal(err)
					}
					f.Close()
				})
				own := filepath.Join(path, fmt.Sprint(attempt))
				if err := os.Remove(filepath.Join(own, GoferFile)); err != nil {
					t.Fatal(err)
				}
				for _, n := range []string{AppFile, AppFile + ".1", SentryFile, GoferFile, "other\n"} {
					if err := plant(filepath.Join(own, n)); err != nil {
						t.Skipf("can't be made here: %v", err)
					}
				}
				ends(t, "to read its logs", func() {
					logs, err := Open(l.Store, "web", attempt)
					if err != nil {
						t.Fatal(err)
					}
					defer logs.Close()
					if said := logs.Tail(GoferFile, 1000); said != "" {
						t.Errorf("the gofer said %q", said)
					}
					for _, f := range []*sandboxlog.Follower{logs.App(), logs.Sentry()} {
						err := f.Next(func(e sandboxlog.Entry) error { return fmt.Errorf("read %q", e.Text) })
						if err == nil || strings.Contains(err.Error(), "read \"") {
							t.Errorf("what is no log: %v", err)
						}
						f.Close()
					}
				})
				if n := len(entries(t, path)); n > keepAttempts {
					t.Errorf("attempt %d: logs of %d attempts are kept", attempt, n)
				}
			}
			trash := filepath.Join(l.Store.Path(), actual.TrashDir)
			if got := entries(t, trash); len(got) > 0 {
				t.Errorf("in the trash: %v", got)
			}
			ends(t, "to forget it", func() {
				if err := l.Store.Remove("web"); err != nil {
					t.Error(err)
				}
			})
			if b, err := os.ReadFile(canary); err != nil || !strings.Contains(string(b), "secret") {
				t.Errorf("%q %v", b, err)
			}
		})
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// The log directory itself was a gofer's with earlier versions: whatever it holds,
// or is, a new attempt has one of its own, and the logs before it can be read.
func TestLogsOfEarlierVersion(t *testing.T) {
	t.Parallel()
	line := "2026-01-02T03:04:05Z stdout F old\n"
	for what, build := range map[string]func(path string) error{
		"files": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(p+"/6.log", []byte(line), 0o600), os.WriteFile(p+"/7.log", []byte(line), 0o600), os.WriteFile(p+"/gofer.log", nil, 0o600))
		},
		"a fifo":               func(p string) error { return unix.Mkfifo(p, 0o600) },
		"a file":               func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"a link":               func(p string) error { return os.Symlink(os.TempDir(), p) },
		"a fifo of that name":  func(p string) error { return errors.Join(os.Mkdir(p, 0o700), unix.Mkfifo(p+"/8", 0o600)) },
		"a link of that name":  func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Symlink(os.TempDir(), p+"/8")) },
		"a tree of that name":  func(p string) error { return os.MkdirAll(p+"/8/app.log/x", 0o700) },
		"what is of no number": func(p string) error { return os.MkdirAll(p+"/-1/x/..x\n", 0o700) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, dir, path := logsHost(t)
			if err := build(path); err != nil {
				t.Fatal(err)
			}
			logs, err := l.Prepare(dir, "web", 8, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer logs.Close()
			want := "[8]"
			if what == "files" {
				want = "[7.log 8]"
				old, err := Open(l.Store, "web", 7)
				if err != nil {
					t.Fatal(err)
				}
				defer old.Close()
				f := old.App()
				defer f.Close()
				n := 0
				if err := f.Next(func(sandboxlog.Entry) error { n++; return nil }); err != nil || n != 1 {
					t.Errorf("%d lines: %v", n, err)
				}
			}
			if got := fmt.Sprint(entries(t, path)); got != want {
				t.Errorf("%s, expected %s", got, want)
			}
			if got := entries(t, filepath.Join(path, "8")); len(got) > 0 {
				t.Errorf("not new: %v", got)
			}
		})
	}
}

// A sparse file costs no disk and would be read for hours.
func TestSparseLog(t *testing.T) {
	t.Parallel()
	l, dir, path := logsHost(t)
	logs, err := l.Prepare(dir, "web", 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	logs.Close()
	f, err := os.Create(filepath.Join(path, "1", AppFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := "\n2026-01-02T03:04:05Z stdout F last\n"
	if _, err := f.WriteAt([]byte(line), 1<<42); err != nil {
		t.Skipf("no such file can be made here: %v", err)
	}
	ends(t, "to read it", func() {
		logs, err := Open(l.Store, "web", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer logs.Close()
		fo := logs.App()
		defer fo.Close()
		var got []string
		if err := fo.Next(func(e sandboxlog.Entry) error { got = append(got, string(e.Stream)+" "+string(e.Text)); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || !strings.Contains(got[0], "bytes were passed over") || got[1] != "stdout last" {
			t.Errorf("%q", got)
		}
	})
	if _, err := Open(l.Store, "web", 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an attempt without logs: %v", err)
	}
}
