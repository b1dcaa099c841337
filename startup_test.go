// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// costly are calls that take longer than most packages need to initialize.
var costly = map[string]bool{"regexp.MustCompile": true, "regexp.MustCompilePOSIX": true, "template.Must": true, "crc32.MakeTable": true, "crc64.MakeTable": true}

// madeAtStart are costly calls that are made when a package is initialized.
func madeAtStart(f *ast.File) (calls []token.Pos) {
	for _, decl := range f.Decls {
		if g, ok := decl.(*ast.GenDecl); !ok || g.Tok != token.VAR {
			continue
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && costly[x.Name+"."+sel.Sel.Name] {
						calls = append(calls, call.Pos())
					}
				}
			}
			_, later := n.(*ast.FuncLit)
			return !later
		})
	}
	return calls
}

// A verb that lives for a few milliseconds does not pay for the patterns and tables of all
// others. Six patterns and a table took about half of the time that all packages take.
func TestMadeAtStart(t *testing.T) {
	t.Parallel()
	for _, name := range files(t) {
		if !bounded.MatchString(name) || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "test/") || strings.Contains(name, "/testdata/") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range madeAtStart(f) {
			t.Errorf("%s: it is made in every start of a program; put it into a sync.OnceValue", fset.Position(at))
		}
	}
	for code, want := range map[string]int{
		`var x = regexp.MustCompile("a")`: 1, `var x, y = f(), g(crc32.MakeTable(1))`: 1,
		`var x = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("a") })`: 0, `func f() { x := regexp.MustCompile("a") }`: 0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+code, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(madeAtStart(f)); got != want {
			t.Errorf("%s: %d calls, expected %d", code, got, want)
		}
	}
}
