// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file is noticed when it comes, with the directories it is in, and when it
// changes in any way.
func TestWatchFile(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	path := filepath.Join(top, "a", "b", "policy.yaml")
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- watchFile(ctx, path, func() { changes <- struct{}{} }, func(err error) { t.Errorf("watch: %v", err) })
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
		done <- watchFile(ctx, path, func() { changes <- struct{}{} }, func(err error) { t.Errorf("watch: %v", err) })
	}()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	told("directories")
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	told("a file in them")
	cancel()
	must(t, <-done)
}

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(top, "real"), 0o755))
	must(t, os.Symlink("real", filepath.Join(top, "link")))
	path := filepath.Join(top, "policy.yaml")
	say := func() string {
		var out, diag bytes.Buffer
		a := &app{stdout: &out, stderr: &diag, manifests: top + "/m", state: top + "/none", policy: path}
		var lines []string
		for _, f := range a.checkPolicy() {
			lines = append(lines, f.Level+" "+f.Message)
		}
		return strings.Join(lines, "\n") + diag.String()
	}
	if got := say(); !strings.HasPrefix(got, "error read host policy: open "+path+": no such file") {
		t.Error(got)
	}
	must(t, os.WriteFile(path, []byte(policyFor(top+"/real")), 0o644))
	if got := say(); got != "ok "+path {
		t.Error(got)
	}
	must(t, os.WriteFile(path, []byte(policyFor(top+"/link", top+"/missing")), 0o644))
	want := "ok " + path + "\nwarning " + top + "/link leads through a symbolic link, and nothing of it is shared; allow " + top + "/real\n" +
		"warning nothing can be shared of what it allows: lstat " + top + "/missing: no such file or directory"
	if got := say(); got != want {
		t.Errorf("%s\nexpected %s", got, want)
	}
}
