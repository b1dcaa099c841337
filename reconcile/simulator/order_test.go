// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// order is what each function that has a model here calls, and in which order.
// Other calls may be in between. Whoever changes it in the product must change
// the model too: the simulator proves nothing about another order.
var order = []struct{ pkg, fn, calls string }{
	{"launcher", "create", "requested intent Put start abort"},
	{"launcher", "intent", "load Canonical Claim NewUID proveDead release"},
	{"launcher", "start", "boot startApp Put"},
	{"launcher", "boot", "Dir prepareLogs spawnRecorded open connect"},
	{"launcher", "spawnRecorded", "createGroup spawnPair Add abandon Put abandon"},
	{"launcher", "spawnPair", "sentryArgs bindControl Unlinkat Bind openExit startHeld spawnGofer openExit startHeld abandon"},
	{"launcher", "startHeld", "StartProcess Identify abandon"},
	{"launcher", "startApp", "StartRoot sentryDied ReadExit"},
	{"launcher", "abort", "reapPair release PutUrgent"},
	{"launcher", "destroy", "load PutUrgent stopApp Cause reapPair release conclude PutUrgent"},
	{"launcher", "conclude", "ReadExit"},
	{"launcher", "stopApp", "Open Alive signalApp Wait"},
	{"launcher", "reapPair", "kill kill"},
	{"launcher", "kill", "Open waitDead Alive Signal waitDead Reap"},
	{"launcher", "release", "BootID openGroup Kill Remove Dir Unlinkat"},
	{"launcher", "proveDead", "Liveness Open Alive"},
	{"launcher", "Forget", "load proveDead Remove"},
	{"actual", "OpenStore", "openStore Mkdirat Fsync"},
	{"actual", "Claim", "claim Mkdirat Dir Fstatat SweepTemps Fsync"},
	{"actual", "Put", "EncodeRecord Dir Write"},
	{"actual", "Remove", "openDir Renameat Fsync Fsync NewRemover"},
	{"actual", "DropRequest", "syncDone Fsync lockRequests readRequest Remove"},
	{"actual", "PutRequest", "lockRequests Write"},
	{"actual", "Observe", "BootID List Requests look look ReadExit goferLeft drop"},
	{"actual", "look", "Open Alive Reap"},
	{"actual", "Open", "BootID PidfdOpen verify"},
	{"actual/atomicfile", "Write", "checkTarget write createTemp Write Sync Renameat2 syncDir Fsync"},
	{"actual/atomicfile", "Remove", "Unlinkat syncDir"},
	{"desired", "Load", "scan identify resolve settle"},
	{"cmd/sandboxctl", "daemon", "OpenStore Lock SweepTrash SweepTemps newDaemon List DaemonInfo run"},
}

// callsOf are the calls of each function of a package, in the order of the text. A
// name that two functions have is both.
type callsOf map[string][]string

func (s callsOf) read(t *testing.T, text string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch f := call.Fun.(type) {
			case *ast.Ident:
				s[fn.Name.Name] = append(s[fn.Name.Name], f.Name)
			case *ast.SelectorExpr:
				s[fn.Name.Name] = append(s[fn.Name.Name], f.Sel.Name)
			}
			return true
		})
	}
}

// has says whether a function makes the calls in this order, itself or in other
// functions of its package. It returns those that are left.
func (s callsOf) has(fn string, calls []string, within map[string]bool) []string {
	within[fn] = true
	defer delete(within, fn)
	for _, c := range s[fn] {
		if len(calls) > 0 && c == calls[0] {
			calls = calls[1:]
		}
		if _, ours := s[c]; ours && !within[c] && len(within) < 4 {
			calls = s.has(c, calls, within)
		}
	}
	return calls
}

func TestOrder(t *testing.T) {
	t.Parallel()
	packages := map[string]callsOf{}
	for _, o := range order {
		if packages[o.pkg] == nil {
			s := callsOf{}
			paths, err := filepath.Glob("../../" + o.pkg + "/*.go")
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range paths {
				if strings.HasSuffix(p, "_test.go") {
					continue
				}
				b, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				s.read(t, string(b))
			}
			packages[o.pkg] = s
		}
		if left := packages[o.pkg].has(o.fn, strings.Fields(o.calls), map[string]bool{}); len(left) > 0 {
			t.Errorf("%s: %s does not call %s after what is before it in %q: is the model still right?", o.pkg, o.fn, left[0], o.calls)
		}
	}
	// It can fail.
	s := callsOf{}
	s.read(t, "package p\nfunc f() { a(); defer g(); x.b() }\nfunc g() { c() }")
	for calls, ok := range map[string]bool{"a g b": true, "a c b": true, "b a": false, "c g": false, "a b d": false} {
		if left := s.has("f", strings.Fields(calls), map[string]bool{}); (len(left) == 0) != ok {
			t.Errorf("%q: left %v", calls, left)
		}
	}
}
