// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/image/puller"
)

// claims are the rows of the tables of a document: id, cells, and the last cell,
// which names what proves them.
func claims(t *testing.T, path, id string) [][]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(`^` + id + `$`)
	var out [][]string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if re.MatchString(cells[0]) {
			out = append(out, cells)
		}
	}
	return out
}

// TestClaims: a threat or fault that no test shows is a wish. Each row of these
// documents has an id of its own, as many cells as its table, and names tests
// and scripts that exist.
func TestClaims(t *testing.T) {
	t.Parallel()
	have := names(t)
	for _, doc := range []struct {
		path, id    string
		cells, rows int
	}{
		{"docs/internals/threat-model.md", `[A-Z]{3}-[0-9]{2}`, 5, 35},
		{"docs/internals/fault-catalogue.md", `[A-Z][0-9]+`, 4, 60},
		{"docs/internals/reference-parity.md", `r?[0-9]+`, 4, 61},
	} {
		rows := claims(t, doc.path, doc.id)
		if len(rows) < doc.rows {
			t.Errorf("%s has %d rows, expected %d or more", doc.path, len(rows), doc.rows)
		}
		seen := map[string]bool{}
		for _, cells := range rows {
			if seen[cells[0]] {
				t.Errorf("%s: %s stands there twice", doc.path, cells[0])
			}
			seen[cells[0]] = true
			if len(cells) != doc.cells {
				t.Errorf("%s: %s has %d cells, expected %d", doc.path, cells[0], len(cells), doc.cells)
				continue
			}
			proof := cells[len(cells)-1]
			tests, scripts := proofName.FindAllStringSubmatch(proof, -1), scriptOf.FindAllStringSubmatch(proof, -1)
			if len(tests)+len(scripts) == 0 {
				t.Errorf("%s: %s names no test", doc.path, cells[0])
			}
			for _, m := range tests {
				if !have[m[1]] {
					t.Errorf("%s: %s: there is no %s", doc.path, cells[0], m[1])
				}
			}
			for _, m := range scripts {
				if _, err := os.Stat("cmd/sandboxctl/testdata/script/" + m[1]); err != nil {
					t.Errorf("%s: %s: %v", doc.path, cells[0], err)
				}
			}
		}
	}
}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// yamlProblems are those of a block of a page: a document, or a part of a spec.
func yamlProblems(t *testing.T, block string) (problems []desired.Problem) {
	t.Helper()
	switch {
	case strings.HasPrefix(block, "registries:"):
		path := filepath.Join(t.TempDir(), "registries.yaml")
		if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := puller.LoadRegistries(path); err != nil {
			problems = []desired.Problem{{Message: err.Error()}}
		}
	case strings.Contains(block, "kind: "+desired.PolicyKind):
		_, problems = hostpolicy.Decode("policy.yaml", []byte(block))
	case strings.Contains(block, "apiVersion:"):
		_, problems = desired.Decode("block.yaml", []byte(block))
	default:
		head := "apiVersion: " + desired.APIVersion + "\nkind: " + desired.Kind + "\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n"
		if !strings.Contains(block, "  command:") {
			head += "  command: [sleep, infinity]\n"
		}
		_, problems = desired.Decode("block.yaml", []byte(head+block))
	}
	return problems
}

// What the documentation shows can be copied.
func TestYAMLBlocks(t *testing.T) {
	t.Parallel()
	n := 0
	for _, f := range pages(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range yamlBlock.FindAllStringSubmatch(string(text), -1) {
			n++
			for _, p := range yamlProblems(t, b[1]) {
				t.Errorf("%s: %s in\n%s", f, p.Error(), b[1])
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d blocks were found", n)
	}
	for _, bad := range []string{"  comand: [x]\n", "apiVersion: x\nkind: HostPolicy\n", "registries:\n  a b: {}\n", "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {}\n"} {
		if len(yamlProblems(t, bad)) == 0 {
			t.Errorf("%q is taken for valid", bad)
		}
	}
}

// atHand are the pages with commands that need what a host of tests does not have.
var atHand = map[string]string{
	"docs/guide/images.md":  "the internet, and tools that write images",
	"docs/reference/oci.md": "podman, containerd and the internet",
}

// unread are the fences of a page whose block no test reads or runs.
func unread(path, text string) (bad []string) {
	inside := false
	for line := range strings.Lines(text) {
		kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		if inside = fence != inside; !fence || !inside {
			continue
		}
		switch kind {
		case "sh", "yaml", "text", "go": // run, read, no commands, and compiled as an example
		case "console":
			if atHand[path] == "" {
				bad = append(bad, line)
			}
		default:
			bad = append(bad, line)
		}
	}
	return bad
}

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// What the documentation shows of Go is a program of the examples, which is compiled and run by
// tests.
func TestGoBlocks(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob("examples/*/*.go")
	if err != nil || len(examples) == 0 {
		t.Fatal(err)
	}
	programs := map[string]bool{}
	for _, f := range examples {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		programs[string(b)] = true
	}
	n := 0
	for _, f := range pages(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range goBlock.FindAllStringSubmatch(string(text), -1) {
			n++
			if !programs[b[1]] {
				t.Errorf("%s: no program of the examples is\n%s", f, b[1])
			}
		}
	}
	if n == 0 {
		t.Error("no block was found")
	}
}

// TestBlocks: a command that nobody runs is wrong some day. Blocks are marked as sh, which
// TestDocsBlocks or the test in the virtual machine runs, as yaml, which TestYAMLBlocks
// reads, as go, which TestGoBlocks finds in the examples, or as text without commands. The page of verbs is what --help prints.
func TestBlocks(t *testing.T) {
	t.Parallel()
	for _, f := range pages(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if f == "docs/reference/verbs.md" {
			continue
		}
		for _, b := range unread(f, string(text)) {
			t.Errorf("%s: no test runs or reads the block %q: mark it as sh, yaml or text", f, strings.TrimSpace(b))
		}
	}
	for text, want := range map[string]int{"```sh\na\n```\n": 0, "```\na\n```\n": 1, "```console\n# a\n```\n```yaml\n```\n": 1, "```bash\na\n```\n```text\n```\n": 1} {
		if got := unread("docs/x.md", text); len(got) != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

var hop = regexp.MustCompile("(?m)^\\| ([0-9]) \\| `([a-z0-9_/.-]+\\.go)` \\| `(\\w+)` \\|")

// walkProblems are those of the walks of a page: hops that are not counted, that are
// in a file or return to a room that was left, or that name no function of their file.
func walkProblems(text string) (problems []string, walks int) {
	var (
		seen map[string]bool
		last int
		room string
	)
	for _, m := range hop.FindAllStringSubmatch(text, -1) {
		n, file, function := int(m[1][0]-'0'), m[2], m[3]
		if n == 1 {
			walks, seen, last, room = walks+1, map[string]bool{}, 0, ""
		}
		if n != last+1 || seen[file] {
			problems = append(problems, fmt.Sprintf("walk %d: hop %d in %s follows hop %d", walks, n, file, last))
		}
		dir := filepath.Dir(file)
		if dir != room && seen[dir] {
			problems = append(problems, fmt.Sprintf("walk %d: hop %d returns to %s", walks, n, dir))
		}
		last, room, seen[file], seen[dir] = n, dir, true, true
		src, err := os.ReadFile(file)
		if err != nil || !regexp.MustCompile(`(?m)^func (\(\w+ \*?\w+\) )?`+function+`\(`).Match(src) {
			problems = append(problems, fmt.Sprintf("walk %d: %s has no function %s (moved? name its new file)", walks, file, function))
		}
	}
	return problems, walks
}

// TestWalks: the walks of ARCHITECTURE.md name functions that are in their files,
// count their hops, and each hop is another file. None returns to a room that it has
// left: a reader goes through each room once.
func TestWalks(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	problems, walks := walkProblems(string(b))
	for _, p := range problems {
		t.Errorf("ARCHITECTURE.md, %s", p)
	}
	if walks != 5 {
		t.Errorf("%d walks, expected 5", walks)
	}
	const compute, judge, load = "| `reconcile/plan.go` | `Compute` |\n", "| `reconcile/judge.go` | `judge` |\n", "| `desired/manifestdir/dir.go` | `Load` |\n"
	for text, want := range map[string]int{
		"| 1 " + compute + "| 2 " + judge + "| 3 " + load: 0,
		"| 1 " + compute + "| 2 " + load + "| 3 " + judge: 1, // returns
		"| 1 " + compute + "| 3 " + load:                  1,
		"| 1 " + compute + "| 2 " + compute:               1,
		"| 1 | `reconcile/plan.go` | `NoSuch` |\n":        1,
		"| 1 " + compute + "| 1 " + load + "| 2 " + judge: 0, // two walks
	} {
		if got, _ := walkProblems(text); len(got) != want {
			t.Errorf("%d problems, expected %d: %q\n%s", len(got), want, got, text)
		}
	}
}

var (
	placesTable = regexp.MustCompile(`(?s)\n\| what \| its value is a \|.*?\n\n`)
	place       = regexp.MustCompile("\\[`(\\w+)…?`\\]\\(([a-z0-9_/-]+\\.go)\\)")
)

// missingPlaces are the names of a table whose files do not declare them. A name that
// ends in … is the beginning of several.
func missingPlaces(t *testing.T, table string) (missing []string, n int) {
	t.Helper()
	for _, m := range place.FindAllStringSubmatch(table, -1) {
		n++
		end := `\b`
		if strings.Contains(m[0], "…") {
			end = ""
		}
		src, err := os.ReadFile(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^(func (\(\w+ \*?\w+\) )?|type |const |var |\t)` + m[1] + end).Match(src) {
			missing = append(missing, m[1]+" in "+m[2])
		}
	}
	return missing, n
}

// TestPlaces: what ARCHITECTURE.md says of where a new thing goes names what is in the
// files it links. Whether the files are there, TestLinks holds.
func TestPlaces(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := placesTable.FindString(string(b))
	missing, n := missingPlaces(t, table)
	for _, m := range missing {
		t.Errorf("ARCHITECTURE.md: there is no %s (moved? link its new file)", m)
	}
	if rows := strings.Count(table, "\n| ") - 2; rows != 7 || n < 15 {
		t.Errorf("%d rows with %d names, expected 7 with at least 15: this test sees too little", rows, n)
	}
	if missing, n := missingPlaces(t, "[`Compute`](reconcile/plan.go) [`Nosuch`](reconcile/plan.go) [`OpC…`](reconcile/op.go) [`Comput`](reconcile/plan.go)"); n != 4 || len(missing) != 2 {
		t.Errorf("of 4 names %d are seen and %q are missing, expected Nosuch and Comput", n, missing)
	}
}
