// SPDX-License-Identifier: Apache-2.0

// Package validation has the programs of the OCI runtime validation suite judge
// a runtime, and compares their results with docs/internals/conformance.md, which is the
// table of what is expected: a result that is worse fails, and so does one that
// is better, or the table would not stay true.
//
// It is a module of its own, for the suite's sake. .ci/validate builds the
// programs and runs it.
package validation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	bin     = flag.String("bin", "", "absolute directory of the runtime, with the suite's programs in validation/")
	under   = flag.String("runtime", "sandboxctl-oci", "runtime to judge: sandboxctl-oci or runsc")
	keep    = flag.String("keep", "", "absolute directory for what the programs say")
	workers = flag.Int("workers", 2, "programs to run at the same time, beside those that take turns")
)

const (
	table = "../../docs/internals/conformance.md"
	// timeout is for one program. The longest that ends well needs 40 s.
	timeout = 2 * time.Minute
	// tries is how often a program runs, from the second time on by itself, until
	// its result is the expected one. Some signal a shell right after its start and
	// expect that it has got as far as its traps: with others at work it has not.
	tries = 3
)

// Where the stand-in for the runtime finds what it needs.
const (
	envRuntime = "VALIDATION_RUNTIME"
	envRoot    = "VALIDATION_ROOT"
)

func TestMain(m *testing.M) {
	if rt := os.Getenv(envRuntime); rt != "" {
		fmt.Fprintln(os.Stderr, standIn(rt, os.Getenv(envRoot), os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// standIn becomes the runtime. It is what the programs take for it in their
// second run: runtimetest, which looks at a container from within, stops at the
// table of mounts, for which gVisor has no sources. So it gets another
// config.json to compare with, without the mounts; the container is the same.
func standIn(rt, root string, args []string) error {
	if i := slices.Index(args, "--bundle"); i >= 0 && i+1 < len(args) && args[0] == "create" {
		if err := mountsAside(args[i+1]); err != nil {
			return fmt.Errorf("put mounts aside: %w", err)
		}
	}
	return syscall.Exec(rt, append([]string{rt, "--root", root}, args...), os.Environ())
}

func mountsAside(bundle string) error {
	path := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var cfg map[string]any
	if err := json.Unmarshal(b, &cfg); err != nil {
		return err
	}
	process, _ := cfg["process"].(map[string]any)
	args, _ := process["args"].([]any)
	if len(args) != 2 || args[0] != "/runtimetest" || args[1] != "--path=/" {
		return nil
	}
	args[1] = "--path=/aside"
	if b, err = json.Marshal(cfg); err != nil {
		return err
	}
	delete(cfg, "mounts")
	aside, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(bundle, "aside"), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path, b, 0o644), os.WriteFile(filepath.Join(bundle, "aside/config.json"), aside, 0o644))
}

var (
	point = regexp.MustCompile(`^(not )?ok\b([^#]*)(# (?i:(skip|todo)))?`)
	plan  = regexp.MustCompile(`^1\.\.[0-9]+`)
	// Some programs have no test points at all: they say an error, or nothing.
	complaint = regexp.MustCompile(`^    "error": "[^"]`)
)

// judge is the result of a program in a few words.
func judge(out string, err error) string {
	var passed, skipped, failed int
	var planned, complained, open bool
	for line := range strings.Lines(out) {
		m := point.FindStringSubmatch(line)
		switch {
		case plan.MatchString(line):
			planned = true
		case m == nil:
			// The details of a test point follow it. Those of none are a complaint.
			complained = complained || !open && complaint.MatchString(line)
		case m[4] != "":
			skipped, open = skipped+1, true
		case m[1] != "":
			failed, open = failed+1, true
		default:
			passed, open = passed+1, true
		}
	}
	// runtimetest says its plan last, after which nothing is missing.
	stopped := ""
	if !planned && passed+failed > 0 {
		stopped = ", then stops"
	}
	switch {
	case failed > 0:
		return fmt.Sprintf("%d of %d fail%s", failed, passed+failed, stopped)
	case err != nil:
		return "gives up"
	case stopped != "":
		return fmt.Sprintf("%d pass%s", passed, stopped)
	case complained:
		return "complains"
	case passed == 0 && skipped > 0:
		return "skips"
	}
	return "clean"
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		out  string
		err  error
		want string
	}{
		{"TAP version 13\nok 1 - a\n  ---\n  {\n    \"error\": \"b\"\n  }\n  ...\n1..1\n", nil, "clean"},
		{"TAP version 13\n1..0\n", nil, "clean"},
		{"", nil, "clean"},
		{"", errors.New("exit status 1"), "gives up"},
		{"TAP version 13\n  ---\n  {\n    \"error\": \"b\"\n  }\n  ...\n1..0\n", nil, "complains"},
		{"ok 1 - a\nnot ok 2 - b\n1..2\n", nil, "1 of 2 fail"},
		{"ok 1 - a\nnot ok 2 - b\n1..2\n", errors.New("exit status 1"), "1 of 2 fail"},
		{"ok 1 - a\nnot ok 2 - b\n", nil, "1 of 2 fail, then stops"},
		{"ok 1 - a\n", nil, "1 pass, then stops"},
		{"ok 1 - a\nnot ok 2 # TODO b\n1..2\n", nil, "clean"},
		{"ok 1 # SKIP a\n1..1\n", nil, "skips"},
	} {
		if got := judge(c.out, c.err); got != c.want {
			t.Errorf("%q: %s, expected %s", c.out, got, c.want)
		}
	}
}

// row is a line of the table: the results of each runtime, in the order of
// runtimes, plain and with the mounts aside.
type row struct {
	program string
	want    [2][2]string
	why     string
}

const (
	header = "| program | sandboxctl | mounts aside | runsc | mounts aside | why |"
	none   = "–" // of a program that does not look from within
)

var runtimes = []string{"sandboxctl-oci", "runsc"}

// readTable returns the table and the text that it is in.
func readTable(t *testing.T) (rows []row, text string) {
	t.Helper()
	b, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(b), "\n"+header+"\n| --- | --- | --- | --- | --- | --- |\n")
	if !found {
		t.Fatalf("%s has no table %q", table, header)
	}
	for line := range strings.Lines(after) {
		c := strings.Split(strings.TrimSpace(line), " | ")
		if len(c) != 6 {
			break
		}
		rows = append(rows, row{
			program: strings.Trim(c[0], "| `"),
			want:    [2][2]string{{c[1], c[2]}, {c[3], c[4]}},
			why:     strings.TrimSpace(strings.TrimSuffix(c[5], "|")),
		})
	}
	return rows, string(b)
}

// expected says whether a result is among those of a cell: a program that races
// with the container it has started has more than one.
func expected(cell, result string) bool { return slices.Contains(strings.Split(cell, " or "), result) }

// passes says whether no test point fails, whichever result of a cell it is. That
// is what the figures count.
func passes(cell string) bool {
	for result := range strings.SplitSeq(cell, " or ") {
		if !slices.Contains([]string{"clean", "complains", "skips"}, result) {
			return false
		}
	}
	return true
}

func programs(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Name}} {{.ImportPath}}", "tool").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if p := strings.TrimSpace(line); strings.Contains(p, "/validation/") {
			list = append(list, filepath.Base(p))
		}
	}
	slices.Sort(list)
	return list
}

// TestTable holds the document together: every program is in it, what does not
// pass says why, and the figures in its text are those of the table.
func TestTable(t *testing.T) {
	t.Parallel()
	rows, text := readTable(t)
	var names []string
	var count [2]int
	for _, r := range rows {
		names = append(names, r.program)
		for i := range r.want {
			if passes(r.want[i][0]) {
				count[i]++
			}
		}
		if r.why == "" && (!expected(r.want[0][0], "clean") || !expected(r.want[0][1], "clean") && r.want[0][1] != none) {
			t.Errorf("%s: nothing says why it is not clean", r.program)
		}
		if passes(r.want[1][0]) && !passes(r.want[0][0]) {
			t.Errorf("%s: runsc passes", r.program)
		}
	}
	slices.Sort(names)
	if all := programs(t); !slices.Equal(names, all) {
		t.Errorf("the table has %q,\nthe suite %q", names, all)
	}
	figures := fmt.Sprintf("**%d of %d** pass; of runsc, %d", count[0], len(rows), count[1])
	if !strings.Contains(text, figures) {
		t.Errorf("%s does not say %q", table, figures)
	}
}

// suite is where the programs run: their working directory, the runtime they
// are given and its state.
type suite struct {
	dir, root, runtime string
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	s := &suite{dir: t.TempDir(), root: filepath.Join(t.TempDir(), "state"), runtime: filepath.Join(*bin, *under)}
	if *under == "sandboxctl-oci" {
		s.runtime = filepath.Join(s.dir, *under)
		if err := os.Symlink(filepath.Join(*bin, "sandboxctl"), s.runtime); err != nil {
			t.Fatal(err)
		}
	}
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-tools").Output()
	if err != nil {
		t.Fatal(err)
	}
	tarball := "rootfs-" + runtime.GOARCH + ".tar.gz"
	for name, target := range map[string]string{
		tarball:       filepath.Join(strings.TrimSpace(string(module)), tarball),
		"runtimetest": filepath.Join(*bin, "validation", "runtimetest"),
	} {
		// The programs copy them, and would copy a link as a link.
		b, err := os.ReadFile(target)
		if err == nil {
			err = os.WriteFile(filepath.Join(s.dir, name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	direct := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", s.runtime, s.root)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stand := fmt.Sprintf("#!/bin/sh\nexec env %s=%s %s=%s %s \"$@\"\n", envRuntime, s.runtime, envRoot, s.root, self)
	for name, script := range map[string]string{"direct": direct, "stand-in": stand} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { s.clean(t) })
	return s
}

// clean deletes the containers that programs have left, and their cgroups.
func (s *suite) clean(t *testing.T) {
	out, err := exec.Command(filepath.Join(s.dir, "direct"), "list", "--quiet").Output()
	if err != nil {
		t.Errorf("list what is left: %v", err)
	}
	for id := range strings.FieldsSeq(string(out)) {
		if out, err := exec.Command(filepath.Join(s.dir, "direct"), "delete", "--force", id).CombinedOutput(); err != nil {
			t.Errorf("delete %s: %v: %s", id, err, out)
		}
	}
	for _, name := range []string{"cgrouptest", "testdir/cgrouptest/container", "testdir/cgrouptest", "testdir"} {
		dirs, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			if err := os.Remove(d); err != nil && !errors.Is(err, syscall.EBUSY) {
				t.Errorf("remove what is left: %v", err)
			}
		}
	}
}

// run runs a program and returns its result and all that it said.
func (s *suite) run(program, rt string) (result, said string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(*bin, "validation", program))
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "RUNTIME="+filepath.Join(s.dir, rt), "TMPDIR="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// What it leaves in the background may keep its output open.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return "hangs", out.String() + errs.String()
	}
	return judge(out.String(), err), out.String() + errs.String()
}

// inTurn are programs that all use the same cgroup.
func inTurn(program string) bool {
	return strings.HasPrefix(program, "linux_cgroups_") || strings.HasPrefix(program, "delete_")
}

func TestValidation(t *testing.T) {
	if *bin == "" {
		t.Skip("-bin is not given: .ci/validate runs this")
	}
	i := slices.Index(runtimes, *under)
	if i < 0 {
		t.Fatalf("-runtime: expected one of %q, got %q", runtimes, *under)
	}
	rows, _ := readTable(t)
	if _, err := os.Stat("/sys/fs/cgroup/pids"); err != nil {
		t.Logf("what the suite says of cgroups is not compared: it knows version 1 only, and there is none: %v", err)
		rows = slices.DeleteFunc(rows, func(r row) bool { return inTurn(r.program) })
	}
	s := newSuite(t)
	type results struct{ got, said [2]string }
	all := make([]results, len(rows))
	do := func(n int) {
		for k, rt := range []string{"direct", "stand-in"} {
			r := &all[n]
			switch {
			case rows[n].want[i][k] == none:
				r.got[k] = none
			case !expected(rows[n].want[i][k], r.got[k]):
				r.got[k], r.said[k] = s.run(rows[n].program, rt)
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range rows {
			if inTurn(rows[n].program) {
				do(n)
			}
		}
	})
	queue := make(chan int)
	for range *workers {
		wg.Go(func() {
			for n := range queue {
				do(n)
			}
		})
	}
	for n := range rows {
		if !inTurn(rows[n].program) {
			queue <- n
		}
	}
	close(queue)
	wg.Wait()
	for range tries - 1 {
		for n := range rows {
			do(n)
		}
	}
	count := 0
	for n, r := range rows {
		if passes(all[n].got[0]) {
			count++
		}
		for k, mode := range []string{"", " with the mounts aside"} {
			got, want, said := all[n].got[k], r.want[i][k], all[n].said[k]
			if !expected(want, got) {
				t.Errorf("%s%s: %s, the table says %s\n%s", r.program, mode, got, want, said)
			}
			if *keep != "" && said != "" {
				if err := os.WriteFile(filepath.Join(*keep, r.program+mode), []byte(said), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Logf("| `%s` | %s | %s |", r.program, all[n].got[0], all[n].got[1])
	}
	t.Logf("%d of %d pass", count, len(rows))
}
