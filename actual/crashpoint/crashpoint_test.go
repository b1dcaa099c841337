// SPDX-License-Identifier: Apache-2.0

package crashpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the module's.
const root = "../.."

// point is one of the registry.
type point struct {
	value string
	file  string // of its doc comment
}

var inFile = regexp.MustCompile(`\(([a-z_/]+\.go)\)\.?$`)

// registry reads points.go.
func registry(t *testing.T) map[string]point {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out, values := map[string]point{}, map[string]string{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			name := v.Names[0].Name
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != "Point" || len(v.Names) != 1 || len(v.Values) != 1 {
				t.Errorf("%s: expected one constant of type Point", name)
				continue
			}
			p := point{value: strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)}
			if other := values[p.value]; other != "" {
				t.Errorf("%s and %s are both %q", name, other, p.value)
			}
			values[p.value] = name
			doc := strings.Join(strings.Fields(v.Doc.Text()), " ")
			m := inFile.FindStringSubmatch(doc)
			if m == nil || !strings.HasPrefix(doc, name+" ") {
				t.Errorf("%s: its comment does not say what it is and end with the file that it is in: %q", name, doc)
				continue
			}
			p.file = m[1]
			out[name] = p
		}
	}
	if len(out) < 50 {
		t.Fatalf("only %d points", len(out))
	}
	return out
}

// calls of one file: Before, After or Do of which point. bad are those of something
// that is not a constant of the registry.
func calls(path string, src any) (uses map[string][]string, bad []string, err error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	uses = map[string][]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.DeferStmt); ok {
			if _, ok := selected(d.Call.Fun); ok {
				// A deferred function is called through its address, so that it
				// would be in a release build.
				bad = append(bad, fset.Position(d.Pos()).String())
			}
		}
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		when, ok := selected(c.Fun)
		if !ok || when == "Env" {
			return true
		}
		if len(c.Args) == map[string]int{"Before": 1, "After": 1, "Do": 2}[when] {
			if name, ok := selected(c.Args[0]); ok {
				uses[name] = append(uses[name], when)
				return true
			}
		}
		bad = append(bad, fset.Position(c.Pos()).String())
		return true
	})
	return uses, bad, nil
}

// selected is X of crashpoint.X.
func selected(e ast.Expr) (string, bool) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	id, ok := s.X.(*ast.Ident)
	return s.Sel.Name, ok && id.Name == "crashpoint"
}

// Every point is where its comment says, before and after, and nowhere else; and
// nothing but a point of the registry is anywhere.
func TestPoints(t *testing.T) {
	t.Parallel()
	points := registry(t)
	found := map[string]map[string][]string{} // point, file, Before and After
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || p == filepath.Join(root, "bin")) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		uses, bad, err := calls(p, nil)
		for _, b := range bad {
			t.Errorf("%s: a crash point that is none of the registry", b)
		}
		rel, rerr := filepath.Rel(root, p)
		if rerr != nil {
			return rerr
		}
		for name, when := range uses {
			if _, ok := points[name]; !ok {
				t.Errorf("%s: there is no point %s", rel, name)
			}
			if found[name] == nil {
				found[name] = map[string][]string{}
			}
			found[name][rel] = when
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range points {
		files := slices.Sorted(maps.Keys(found[name]))
		if !slices.Equal(files, []string{p.file}) {
			t.Errorf("%s is in %v, its comment says %s", name, files, p.file)
			continue
		}
		before, after := 0, 0
		for _, when := range found[name][p.file] {
			switch when {
			case "Before":
				before++
			case "After":
				after++
			case "Do":
				before++
				after++
			}
		}
		if before == 0 || before != after {
			t.Errorf("%s: %d times before and %d times after", name, before, after)
		}
	}
	// It can fail.
	for _, src := range []string{`crashpoint.Before("lock")`, `crashpoint.Before(p)`, `crashpoint.After(crashpoint.Point("x"))`, `crashpoint.Do(p, f)`, `crashpoint.Do("lock", f)`, `defer crashpoint.After(crashpoint.Lock)`} {
		if _, bad, err := calls("x.go", "package x\nfunc f() { "+src+" }"); err != nil || len(bad) == 0 {
			t.Errorf("%s is not seen: %v", src, err)
		}
	}
}

// A child of a release build gets nothing of it, and a nil environment would be
// the parent's.
func TestEnv(t *testing.T) {
	t.Parallel()
	if env := Env(); env == nil || len(env) != 0 {
		t.Errorf("%#v, expected none and not nil", env)
	}
	// One file has the tag, and the other its opposite.
	for file, want := range map[string]string{"on.go": "//go:build crashpoints\n", "off.go": "//go:build !crashpoints\n"} {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s, %v: expected %q", file, err, want)
		}
	}
}
