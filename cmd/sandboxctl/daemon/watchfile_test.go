// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file is noticed when it comes, with the directories it is in, and when it
// changes in any way.
func TestWatchFile(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	path, other := filepath.Join(top, "a", "b", "policy.yaml"), filepath.Join(top, "c", "registries.yaml")
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- watchFiles(ctx, []string{path, other}, func() { changes <- struct{}{} }, func(err error) { t.Errorf("watch: %v", err) })
	}()
	told := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(time.Minute):
			t.Fatalf("%s: not noticed", what)
		}
		for {
			select {
			case <-changes:
				continue
			case <-time.After(20 * time.Millisecond):
				return // no more of the same
			}
		}
	}
	told("the start")
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"a directory above", func() error { return os.Mkdir(filepath.Join(top, "a"), 0o755) }},
		{"its directory", func() error { return os.Mkdir(filepath.Join(top, "a", "b"), 0o755) }},
		{"the file", func() error { return os.WriteFile(path, []byte("x"), 0o644) }},
		{"its mode", func() error { return os.Chmod(path, 0o666) }},
		{"another in its place", func() error { return os.Rename(path, path+".old") }},
		{"the directory of the other file", func() error { return os.Mkdir(filepath.Dir(other), 0o755) }},
		{"the other file", func() error { return os.WriteFile(other, []byte("x"), 0o644) }},
	} {
		must(t, step.do())
		told(step.what)
	}
	cancel()
	must(t, <-done)
	// At once, where the directories come while they are looked for.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	must(t, os.RemoveAll(filepath.Join(top, "a")))
	go func() {
		done <- watchFiles(ctx, []string{path, other}, func() { changes <- struct{}{} }, func(err error) { t.Errorf("watch: %v", err) })
	}()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	told("directories")
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	told("a file in them")
	cancel()
	must(t, <-done)
}

// What is beside the file wakes nobody, whatever is done to it; what the path leads
// through does.
func TestWatchFileBeside(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	for _, dir := range []string{"etc", "etc/..1", "etc/..2", "real", "real/deep"} {
		must(t, os.Mkdir(at(dir), 0o755))
	}
	for _, f := range []string{"etc/plain.yaml", "etc/..1/policy.yaml", "etc/..2/policy.yaml", "real/deep/policy.yaml"} {
		must(t, os.WriteFile(at(f), []byte("x"), 0o644))
	}
	must(t, os.Symlink("..1", at("etc/..data")))
	must(t, os.Symlink("..data/policy.yaml", at("etc/mapped.yaml")))
	must(t, os.Symlink(at("real/deep/policy.yaml"), at("etc/away.yaml")))
	must(t, os.Symlink("etc", at("link")))
	replace := func(target, link string) func() error {
		return func() error {
			return errors.Join(os.Symlink(target, at(link+".new")), os.Rename(at(link+".new"), at(link)))
		}
	}
	write := func(f string) func() error { return func() error { return os.WriteFile(at(f), []byte("y"), 0o644) } }
	for path, steps := range map[string][]func() error{
		"etc/plain.yaml":  {write("etc/plain.yaml"), func() error { return os.Rename(at("etc/plain.yaml"), at("etc/old")) }, write("etc/plain.yaml")},
		"etc/mapped.yaml": {replace("..2", "etc/..data"), write("etc/..2/policy.yaml"), replace("..1", "etc/..data")},
		"etc/away.yaml":   {write("real/deep/policy.yaml"), func() error { return os.Rename(at("real/deep"), at("real/d")) }, func() error { return os.Rename(at("real/d"), at("real/deep")) }},
		"link/plain.yaml": {write("etc/plain.yaml"), replace("real", "link"), replace("etc", "link")},
	} {
		changes := make(chan struct{}, 10000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- watchFiles(ctx, []string{at(path)}, func() { changes <- struct{}{} }, func(err error) { t.Errorf("watch: %v", err) })
		}()
		<-changes
		noise := func() {
			t.Helper()
			for _, f := range []string{"etc/daemon.log", "etc/" + filepath.Base(path) + ".log", "etc/.x", "real/y", "z"} {
				for range 50 {
					l, err := os.OpenFile(at(f), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
					must(t, err)
					_, err = l.WriteString("line\n")
					must(t, errors.Join(err, l.Close()))
				}
				must(t, os.Remove(at(f)))
			}
		}
		for i, step := range steps {
			noise()
			// What comes after the noise is told of after it.
			must(t, step())
			select {
			case <-changes:
			case <-time.After(time.Minute):
				t.Fatalf("%s, step %d: not noticed", path, i)
			}
			for quiet := false; !quiet; {
				select {
				case <-changes:
				case <-time.After(20 * time.Millisecond):
					quiet = true
				}
			}
		}
		noise()
		cancel()
		must(t, <-done)
		if n := len(changes); n != 0 {
			t.Errorf("%s: woken %d times for nothing", path, n)
		}
	}
}
