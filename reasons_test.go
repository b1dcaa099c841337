// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sandboxctl.dev/reconcile"
)

// constants are the values of the constants of a file whose names begin with one of
// the prefixes.
func constants(t *testing.T, path string, prefix *regexp.Regexp) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, id := range spec.Names {
			if !prefix.MatchString(id.Name) || i >= len(spec.Values) {
				continue
			}
			if lit, ok := spec.Values[i].(*ast.BasicLit); ok {
				v, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				out[v] = id.Name
			}
		}
		return true
	})
	if len(out) == 0 {
		t.Fatalf("%s has no constant of %s", path, prefix)
	}
	return out
}

var word = regexp.MustCompile("`([^`]+)`")

// explained are the words in the first column of the tables of a section.
func explained(text, section string) map[string]bool {
	out := map[string]bool{}
	_, text, _ = strings.Cut(text, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range word.FindAllStringSubmatch(cells[1], -1) {
				out[m[1]] = true
			}
		}
	}
	return out
}

// differences are what only the code has, and what only the page has.
func differences(code map[string]string, page map[string]bool) []string {
	var out []string
	for v, name := range code {
		if !page[v] {
			out = append(out, name+" ("+v+") is not explained")
		}
	}
	for w := range page {
		if code[w] == "" {
			out = append(out, w+" is explained, and no constant has it")
		}
	}
	return out
}

// docs/reference/status.md explains every phase, condition, reason and event that there is,
// and none that there is not.
func TestReasonsExplained(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("docs/reference/status.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for section, of := range map[string]struct {
		prefix string
		files  []string
	}{
		"Phases":     {"Phase", []string{"reconcile/status.go"}},
		"Conditions": {"Cond", []string{"reconcile/status.go"}},
		"Reasons":    {"Reason|Warning|Quarantined", []string{"actual/reasons.go", "desired/snapshot.go"}},
		"Events":     {"Event", []string{"actual/reasons.go"}},
	} {
		code := map[string]string{}
		for _, f := range of.files {
			maps.Copy(code, constants(t, f, regexp.MustCompile("^("+of.prefix+")[A-Z]")))
		}
		for _, d := range differences(code, explained(text, section)) {
			t.Errorf("docs/reference/status.md, %s: %s", section, d)
		}
	}
	// It can fail, in both directions.
	page := explained("# x\n## Reasons\n| reason | meaning |\n| --- | --- |\n| `A`, `B` | `C` |\n## Events\n| `D` | |\n", "Reasons")
	if got := differences(map[string]string{"A": "ReasonA", "D": "ReasonD"}, page); len(got) != 2 {
		t.Errorf("D and B are not seen: %v", got)
	}
}

// Verbs take every phase: `wait --for=phase=NAME`.
func TestPhases(t *testing.T) {
	t.Parallel()
	code, listed := constants(t, "reconcile/status.go", regexp.MustCompile("^Phase[A-Z]")), map[string]bool{}
	for _, p := range reconcile.Phases {
		listed[p] = true
	}
	for _, d := range differences(code, listed) {
		t.Errorf("reconcile.Phases: %s", d)
	}
}

// spelled are the reasons that a file spells out instead of naming their constant:
// any literal that is given to, or compared with, something called Reason, and any
// that is one of the known ones and more than one word.
func spelled(path string, src any, known map[string]string) ([]string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	seen := map[token.Pos]string{}
	literal := func(e ast.Expr, isReason bool) {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return
		}
		v, err := strconv.Unquote(lit.Value)
		if err == nil && v != "" && (isReason || known[v] != "" && severalWords.MatchString(v)) {
			seen[lit.Pos()] = fset.Position(lit.Pos()).String() + ": " + v
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			literal(n.Value, isReason(n.Key))
		case *ast.BinaryExpr:
			compared := n.Op == token.EQL || n.Op == token.NEQ
			literal(n.Y, compared && isReason(n.X))
			literal(n.X, compared && isReason(n.Y))
		case *ast.AssignStmt:
			for i, r := range n.Rhs {
				literal(r, len(n.Lhs) == len(n.Rhs) && isReason(n.Lhs[i]))
			}
		case *ast.BasicLit:
			literal(n, false)
		}
		return true
	})
	var out []string
	for _, s := range seen {
		out = append(out, s)
	}
	return out, nil
}

var severalWords = regexp.MustCompile(`^[A-Z][a-z]+[A-Z]`)

func isReason(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "Reason" || e.Name == "reason"
	case *ast.SelectorExpr:
		return e.Sel.Name == "Reason"
	}
	return false
}

// A reason that is spelled out is one that no test compares with the page.
func TestReasonsNamed(t *testing.T) {
	t.Parallel()
	where := []string{"actual/reasons.go", "desired/snapshot.go"}
	known := map[string]string{}
	for _, f := range where {
		maps.Copy(known, constants(t, f, regexp.MustCompile("^(Reason|Warning|Quarantined|Event)[A-Z]")))
	}
	for _, f := range files(t) {
		if strings.HasSuffix(f, "_test.go") || slices.Contains(where, f) || strings.Contains(f, "/testdata/") {
			continue
		}
		found, err := spelled(f, nil, known)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found {
			t.Errorf("%s: name the constant of %v", s, where)
		}
	}
	for code, n := range map[string]int{
		`_ = Exit{Reason: "Own"}`: 1, `x.Reason = "Own"`: 1, `reason := "Own"`: 1, `_ = x.Reason == "Own"`: 1, `f("SpecChanged")`: 1, `f("PolicyDenied")`: 1,
		`_ = Exit{Reason: ReasonOwn, Message: "Own"}`: 0, `f("Running")`: 0, `f(x.Reason + ": ")`: 0, `x.Reason = ""`: 0,
	} {
		if got, err := spelled("x.go", "package x\nfunc f() { "+code+" }", known); err != nil || len(got) != n {
			t.Errorf("%s: got %v %v, expected %d", code, got, err, n)
		}
	}
}
