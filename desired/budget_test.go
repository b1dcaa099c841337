// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/desired/desiredtest"
	"sandboxctl.dev/desired/yamldoc"
)

var update = flag.Bool("update", false, "write testdata/yaml/problems.txt anew")

// No file of a permitted size takes long or much, and almost none of these is
// valid. What it takes of memory is the same in each run. The time is judged only where this
// test runs alone, as `make budget` has it: beside others it says how loaded the machine is.
func TestBudget(t *testing.T) {
	timed := os.Getenv("BUDGET") == "time"
	acceptable := map[string]bool{"manifests, one long value": true, "small manifests": true, "thirty values each": true}
	var worst desiredtest.Cost
	check := func(name, text string, mayPass bool) {
		data := []byte(text)
		var docs []Document
		var ps []Problem
		c := desiredtest.Measure(t, 9, func() { docs, ps = Decode("f.yaml", data) })
		worst.Time, worst.Alloc = max(worst.Time, c.Time), max(worst.Alloc, c.Alloc)
		if c.Alloc >= desiredtest.BudgetAlloc || timed && !c.Within(1) {
			t.Errorf("%s: %s and %d KiB for %d bytes", name, c.Time, c.Alloc>>10, len(data))
		}
		if len(ps) == 0 && !mayPass && !isAnyForeign(docs) {
			t.Errorf("%s is accepted", name)
		}
		if len(ps) > 2*yamldoc.MaxProblems+yamldoc.MaxDocuments {
			t.Errorf("%s: %d problems", name, len(ps))
		}
		for _, p := range ps {
			if len(p.Error()) > 2*yamldoc.MaxDocumentBytes || p.Line < 1 || p.Column < 1 {
				t.Errorf("%s: %d bytes at %s", name, len(p.Error()), p.Position)
			}
		}
	}
	shapes := hardShapes()
	for name, text := range shapes {
		if len(text) > yamldoc.MaxFileBytes || len(text) < 1000 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
		text = text[:len(text)/desiredtest.ShapePart]
		check(name, text, acceptable[name] || desiredtest.ShapePart > 1)
		check(name+", fewer marks", fewerMarks(text), acceptable[name] || desiredtest.ShapePart > 1)
	}
	t.Logf("%d shapes twice: at most %s and %d KiB", len(shapes), worst.Time, worst.Alloc>>10)
}

// corpus are the files of testdata/yaml.
func corpus(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/yaml/*.yaml")
	if err != nil || len(files) < 100 {
		tb.Fatalf("%d files: %v", len(files), err)
	}
	out := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		out[filepath.Base(f)] = b
	}
	return out
}

func isAnyForeign(docs []Document) bool {
	return slices.ContainsFunc(docs, func(d Document) bool { return d.Foreign != "" })
}

// Every trap of YAML is refused or another program's, but for those whose name begins with ok, and
// in the words that are written down.
func TestCorpus(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	files := corpus(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		docs, ps := Decode(name, files[name])
		if ok := strings.HasPrefix(name, "ok-"); ok != (len(ps) == 0 && !isAnyForeign(docs)) {
			t.Errorf("%s: %d problems", name, len(ps))
		}
		fmt.Fprintf(&got, "# %s: %d documents\n", name, len(docs))
		if w := ForeignWarning(name, docs); w != nil {
			fmt.Fprintf(&got, "%s\n", w.Error())
		}
		for _, p := range ps {
			fmt.Fprintf(&got, "%s\n", strings.ReplaceAll(p.Error(), "\n", " "))
		}
	}
	const golden = "testdata/yaml/problems.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	wants, gots := strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")
	for i := range max(len(wants), len(gots)) {
		if i >= len(wants) || i >= len(gots) || wants[i] != gots[i] {
			t.Fatalf("line %d of %s is other than before (go test -update writes it anew):\n%s", i+1, golden, strings.Join(gots[i:min(i+5, len(gots))], "\n"))
		}
	}
}

// The bound holds that saves counting.
func TestNodesAtMost(t *testing.T) {
	t.Parallel()
	for name, text := range hardShapes() {
		for _, c := range yamldoc.Split([]byte(text[:len(text)/desiredtest.ShapePart]), 1) {
			if n, ok := countNodes(c.Text); ok && n > yamldoc.NodesAtMost(c.Text) {
				t.Errorf("%s: %d values, expected at most %d", name, n, yamldoc.NodesAtMost(c.Text))
			}
		}
	}
}
