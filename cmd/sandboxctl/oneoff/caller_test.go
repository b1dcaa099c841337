// SPDX-License-Identifier: Apache-2.0

package oneoff

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

func entry(file, annotation string) *desired.Entry {
	return &desired.Entry{
		Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: "web", Annotations: map[string]string{Annotation: annotation}}},
		Source:  desired.Position{File: file},
	}
}

// A process that lives is not gone, one that has ended is, and of one in another pid namespace
// nothing is known.
func TestGone(t *testing.T) {
	t.Parallel()
	id, err := self()
	if err != nil || Gone(id) {
		t.Fatalf("this process (%+v) is gone (%v)", id, err)
	}
	other := id
	other.BootID = "of another boot"
	if !Gone(other) {
		t.Error("a process of another boot lives")
	}
	other = id
	other.PIDNamespace = 1
	if Gone(other) {
		t.Error("a process of another pid namespace is gone")
	}
	cmd := exec.Command("sleep", "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	child, err := process.Identify(fd, cmd.Process.Pid)
	if err != nil || Gone(child) {
		t.Errorf("a child that lives is gone (%v)", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !Gone(child) {
		t.Error("a child that was killed lives")
	}
}

// Only a manifest in a file of its own that names a whole identity is for a process.
func TestCaller(t *testing.T) {
	t.Parallel()
	whole := process.Identity{PID: 7, StartTime: 1, BootID: "b"}
	text := func(id process.Identity) string {
		s, err := Annotate("web", id)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if id := Caller(entry("web.yaml", text(whole))); id == nil || *id != whole {
		t.Errorf("%+v", id)
	}
	// A copy of it under another name is for nobody.
	copied := entry("db.yaml", text(whole))
	copied.Sandbox.Metadata.Name = "db"
	noBoot, noStart, init := whole, whole, whole
	noBoot.BootID, noStart.StartTime, init.PID = "", 0, 1
	for _, e := range []*desired.Entry{
		entry("all.yaml", text(whole)), entry("web.yaml", ""), entry("web.yaml", "me"), entry("web.yaml", `{"sandbox": "web", "pid": 7}`), entry("web.yaml", `{"sandbox": "web", "pid": -1}`),
		entry("web.yaml", text(noBoot)), entry("web.yaml", text(noStart)), entry("web.yaml", text(init)), copied,
	} {
		if id := Caller(e); id != nil {
			t.Errorf("%s, %v: %+v", e.Source.File, e.Sandbox.Metadata.Annotations, id)
		}
	}
}

// A manifest is for one process: not for another one that has its number, and none is for nobody.
func TestFor(t *testing.T) {
	t.Parallel()
	id := process.Identity{PID: 7, StartTime: 1, BootID: "b"}
	text, err := Annotate("web", id)
	if err != nil {
		t.Fatal(err)
	}
	later := id
	later.StartTime = 2
	if !For(entry("web.yaml", text), id) || For(entry("web.yaml", text), later) || For(entry("web.yaml", ""), id) || For(nil, id) {
		t.Error("it is taken for that of another process")
	}
}
