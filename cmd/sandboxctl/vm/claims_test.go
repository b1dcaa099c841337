// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// aboutOtherHosts is said of cgroup v2, systemd or a kernel before 6.10: what holds
	// on the host that runs the other tests proves nothing of it.
	aboutOtherHosts = regexp.MustCompile(`cgroups? ?v2|cgroup2|(?:^|[^.\w])v2\b|systemd|Linux [1-6]\.[0-9]\b|[Kk]ernel [1-6]\.[0-9]\b|make vm`)
	// here is a test whose remark says that it is the machine which shows it.
	here     = regexp.MustCompile("`(Test\\w+|\\w+\\.txtar)` \\([^)]*(?:make vm|v2 alone|6\\.1)[^)]*\\)")
	named    = regexp.MustCompile("`(Test\\w+|\\w+)(?:\\.txtar)?`")
	linkTo   = regexp.MustCompile(`\]\([^)]*\)`)
	fences   = regexp.MustCompile("(?ms)^```.*?^```$")
	declares = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// notOfHosts are statements that name systemd or a version and promise nothing of a host.
var notOfHosts = []string{
	"sandboxctl is four programs in one directory and a systemd unit",      // testDocs runs the commands that follow
	"if it names systemd-resolved (`127.0.0.53`), also of those in",        // an address and a file, read alike on each host: TestUpstreams of launcher/dns
	"There is no init process where the application is one by its name",    // the name of a program
	"Flags\nthat are for what a sandbox does not have (`--systemd-cgroup`", // a flag without effect
}

// What the pages say of hosts that other tests do not run on names a test that the
// machine runs. A test that moves to a package which is not compiled for the machine is
// found here, and not by who relies on it.
func TestClaimsRunHere(t *testing.T) {
	t.Parallel()
	runs := runsHere(t)
	var pages []string
	for _, p := range []string{"guide/*.md", "reference/*.md", "internals/fault-catalogue.md", "internals/threat-model.md", "internals/isolation.md"} {
		found, err := filepath.Glob("../../../docs/" + p)
		must(t, err)
		pages = append(pages, found...)
	}
	statements := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		must(t, err)
		found, problems := unproven(string(text), runs)
		statements += found
		for _, p := range problems {
			t.Errorf("%s: %s", strings.TrimPrefix(page, "../../../"), p)
		}
	}
	if statements < 12 {
		t.Errorf("%d statements were found, expected more", statements)
	}
}

// unproven are the statements of a page about other hosts that name no test which runs
// in the machine.
func unproven(page string, runs map[string]bool) (found int, problems []string) {
	// Of this table each field is proven by tests that its page names elsewhere.
	page, _, _ = strings.Cut(page, "<!-- table:")
	page = linkTo.ReplaceAllString(fences.ReplaceAllString(page, ""), "]")
	for _, s := range statements(page) {
		if !aboutOtherHosts.MatchString(s) || slices.ContainsFunc(notOfHosts, func(n string) bool { return strings.Contains(s, n) }) {
			continue
		}
		found++
		ok := false
		for _, m := range named.FindAllStringSubmatch(s, -1) {
			ok = ok || runs[m[1]]
		}
		for _, m := range here.FindAllStringSubmatch(s, -1) {
			if !runs[strings.TrimSuffix(m[1], ".txtar")] {
				problems = append(problems, m[1]+" does not run in the machine: "+s)
			}
		}
		if !ok {
			problems = append(problems, "no test that runs in the machine is named: "+s)
		}
	}
	return found, problems
}

// statements are the paragraphs, items of lists and rows of tables of a page.
func statements(page string) (out []string) {
	fresh := true
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		begins := strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "#")
		switch {
		case strings.TrimSpace(line) == "":
			fresh = true
		case fresh || begins:
			out, fresh = append(out, line), false
		default:
			out[len(out)-1] += "\n" + line
		}
	}
	return out
}

// runsHere are the names of the tests and scripts that `make vm` runs in the machine.
func runsHere(t *testing.T) map[string]bool {
	t.Helper()
	runs := map[string]bool{}
	add := func(dir string) {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		must(t, err)
		if len(files) == 0 {
			t.Errorf("%s has no tests", dir)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			must(t, err)
			for _, m := range declares.FindAllSubmatch(text, -1) {
				runs[string(m[1])] = true
			}
		}
	}
	add(".")
	for _, p := range allPackages() {
		if p.run == "" {
			add("../../../" + p.dir)
		}
	}
	scripts, err := filepath.Glob("../testdata/script/*.txtar")
	must(t, err)
	for _, s := range scripts {
		runs[strings.TrimSuffix(filepath.Base(s), ".txtar")] = true
	}
	return runs
}

func TestUnproven(t *testing.T) {
	t.Parallel()
	runs := map[string]bool{"TestHost": true, "limits": true}
	for page, want := range map[string]int{
		"On cgroup v2 all is well.\n":                                          1,
		"On cgroup v2 all is well\n(`TestHost`).\n":                            0,
		"On cgroup v2 all is well (`limits.txtar`).\n":                         0,
		"On cgroup v2 all is well (`limits`).\n":                               0,
		"- Before Linux 6.9 it waits.\n- With it not (`TestHost`).\n":          1,
		"Linux 6.18 has it.\n":                                                 0,
		"See [the unit](systemd/unit.service).\n":                              0,
		"```sh\nsystemctl stop systemd\n```\n":                                 0,
		"| a | `TestOther` |\n| on v2 | `TestOther` |\n":                       1,
		"Told (`TestHost`, and `TestOther` (fails on 6.1 only: `make vm`)).\n": 1,
		"| H1 | systemd | `TestOther` (on cgroup v2 alone), `TestHost` |\n":    1,
		"| H1 | systemd | `limits.txtar` (in `make vm`), `TestOther` |\n":      0,
		"systemd is named.\n\nAnd another paragraph has (`TestHost`) of it.\n": 1,
	} {
		if _, problems := unproven(page, runs); len(problems) != want {
			t.Errorf("%q: %q, expected %d", page, problems, want)
		}
	}
}
