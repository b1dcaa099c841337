// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// inProcess are calls of tests of cmd/sandboxctl that run code of the programs in the test.
var inProcess = regexp.MustCompile(`\b(newCLI|realHost|realHostStore|launcher\.New)\(`)

// `make race` has every test of cmd/sandboxctl that runs code of the programs itself; what
// starts programs alone is without the race detector, which does not see them.
func TestRaced(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^INSIDE +:= \^\((.*)\)\$\$$`).FindSubmatch(makefile)
	if m == nil {
		t.Fatal("the Makefile has no INSIDE")
	}
	listed := map[string]bool{}
	for name := range strings.SplitSeq(string(m[1]), "|") {
		listed[name] = true
	}
	files, err := filepath.Glob("cmd/sandboxctl/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			fn, is := d.(*ast.FuncDecl)
			if !is || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") || !inProcess.Match(text[fn.Pos()-1:fn.End()-1]) {
				continue
			}
			found[fn.Name.Name] = true
			if !listed[fn.Name.Name] {
				t.Errorf("%s: %s runs code of the programs: add it to INSIDE of the Makefile", f, fn.Name.Name)
			}
		}
	}
	for name := range listed {
		if !found[name] {
			t.Errorf("INSIDE of the Makefile has %s, which runs no code of the programs", name)
		}
	}
}
