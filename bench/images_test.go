// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/launcher/proc/proctest"
)

// smallTree writes a tar of a root of one static program.
func smallTree(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var all []imagetest.Entry
	for dir := range strings.FieldsSeq("bin dev etc lib opt proc root sbin srv sys tmp usr var") {
		all = append(all, imagetest.Dir(dir))
	}
	program := imagetest.File("bin/busybox", string(data))
	program.Mode = 0o755
	all = append(all, program)
	for name := range strings.FieldsSeq("echo find sh sleep tar touch wc") {
		all = append(all, imagetest.Symlink("bin/"+name, "busybox"))
	}
	path := filepath.Join(t.TempDir(), "tree.tar")
	if err := os.WriteFile(path, imagetest.Tar(all...), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A small root without servers: what can be measured is, and the table says what is not.
func TestImagesRun(t *testing.T) {
	bin, out := programs(t), t.TempDir()
	text, err := exec.Command("go", "run", ".", "-bin", bin, "-out", out, "-only", "images-run", "-tree", smallTree(t), "-peers=false", "-rounds", "1", "-fleet", "2").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	table, err := os.ReadFile(filepath.Join(out, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(table), "\n| ") != 21 || strings.Contains(string(table), "NaN") || strings.Contains(string(table), ": met |") {
		t.Errorf("%s", table)
	}
	for _, row := range []string{"first output", "`find`", "`tar`", "PSS of one", "disk that the image"} {
		if line := lineWith(string(table), row); !strings.Contains(line, " ms ") && !strings.Contains(line, " MiB ") {
			t.Errorf("%s is not measured: %s", row, line)
		}
	}
	for _, row := range []string{"1000 SET", "1000 GET", "pgbench", "fileAccess: direct", "processor time of the sandbox"} {
		if line := lineWith(string(table), row); !strings.Contains(line, "the tree has no usr/") {
			t.Errorf("%s: %s", row, line)
		}
	}
	noGroup(t)
}

func lineWith(text, part string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, part) {
			return l
		}
	}
	return ""
}

// Containers that run when a measurement ends, however it does, are gone with everything
// that podman has made for them.
func TestPodmanIsRemoved(t *testing.T) {
	bin := programs(t)
	work := filepath.Join(t.TempDir(), "removed")
	runtime := filepath.Join(t.TempDir(), "sandboxctl-oci")
	if err := proctest.WriteProgram(runtime, fmt.Appendf(nil, "#!/bin/sh\nexec %s/sandboxctl oci --root %s/oci \"$@\"\n", bin, work), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := newPodman(runtime, work, guest{print: []string{"/bin/echo", "up"}, sleep: []string{"/bin/sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	measure := func() error {
		if err := p.use(smallTree(t)); err != nil {
			return err
		}
		if _, err := p.run(); err != nil {
			return err
		}
		lines, err := p.script(between("echo one; echo two"))
		if _, text, err1 := duration(lines); err != nil || err1 != nil || text != "one\ntwo" {
			return fmt.Errorf("%q %w", text, errors.Join(err, err1, os.ErrInvalid))
		}
		if err := p.up(2); err != nil {
			return err
		}
		charged, err1 := p.charged(2)
		stored, err2 := p.disk()
		if charged <= 0 || stored <= 0 {
			t.Errorf("charged %v, stored %v", charged, stored)
		}
		if err := errors.Join(err1, err2, p.serve(server{name: "keeper", user: "0", script: "touch /data/x && exec sleep 1000"})); err != nil {
			return err
		}
		_, err = p.ask("keeper", "exit 3")
		return err
	}
	if err := measure(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v, expected the failure of a command in a container", err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*/" + p.groups); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), work) {
		t.Errorf("left: %v %s", err, mounts)
	}
	if err := os.RemoveAll(work); err != nil {
		t.Error(err)
	}
}

// A peer that can't do something is named with the reason; ours that can't ends the run.
func TestUnable(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		fails []string
		names int
		note  string
		bad   bool
	}{
		"both can":       {nil, 2, "", false},
		"podman can't":   {[]string{podmanName}, 1, "no such thing / here", false},
		"ours can't":     {[]string{sandboxctlName}, 0, "", true},
		"neither of all": {[]string{podmanName, sandboxctlName}, 0, "no such thing / here", true},
	} {
		cmp := &comparison{b: &bench{ctx: t.Context()}, sides: map[string]side{sandboxctlName: nil, podmanName: nil}, unable: map[string]string{"s6": "not there"}}
		r := cmp.row("x", "something", "ms", 1)
		names, err := cmp.able(func(name string, _ side) error {
			if slices.Contains(c.fails, name) {
				return errors.New("no such | thing\n| here")
			}
			return nil
		}, r)
		note := strings.ReplaceAll(r.Notes[podmanName], "such / thing", "such thing")
		if len(names) != c.names || note != c.note || (err != nil) != c.bad || r.Notes["s6"] != "not there" {
			t.Errorf("%s: %v %v %v", what, names, r.Notes, err)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]float64{
		"\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"12345.68\",\"1.2\"\n":                       12345.68,
		"pgbench (15.14)\nlatency average = 3 ms\ntps = 812.25 (without initial connection time)\n": 812.25,
		"\"test\",\"rps\"\n":                             0,
		"Could not connect to Redis at 127.0.0.1:6379\n": 0,
		"\ntps = 0.0 (without)":                          0,
		"":                                               0,
	} {
		rate := redisRate
		if strings.Contains(out, "tps") {
			rate = pgbenchRate
		}
		if got, err := rate(out); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %v %v", out, got, err)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	at := time.Unix(100, 0)
	lines := []line{{at, "begin"}, {at.Add(time.Second), "x"}, {at.Add(3 * time.Second), "end"}}
	if d, text, err := duration(lines); d != 3*time.Second || text != "x" || err != nil {
		t.Errorf("%v %q %v", d, text, err)
	}
	for _, lines := range [][]line{nil, lines[:1], lines[:2], lines[1:], lines[2:]} {
		if d, _, err := duration(lines); err == nil {
			t.Errorf("%v: %v", lines, d)
		}
	}
}
