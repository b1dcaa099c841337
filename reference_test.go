// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
)

var update = flag.Bool("update", false, "write the tables of docs/reference that are made of the code")

// sources are the files whose comments are in docs/reference. What an explanation
// says is written once: beside what it explains.
type sources struct {
	t       *testing.T
	structs map[string]*ast.StructType // by the name of the type
	values  map[string][]string        // "Spec.Overlay" → the values of its constants
	consts  map[string]*ast.GenDecl    // by the first line of the comment of the block
}

func readSources(t *testing.T, patterns ...string) *sources {
	t.Helper()
	src := &sources{t: t, structs: map[string]*ast.StructType{}, values: map[string][]string{}, consts: map[string]*ast.GenDecl{}}
	for _, p := range patterns {
		paths, err := filepath.Glob(p)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no file (%v)", p, err)
		}
		for _, path := range paths {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if d, ok := d.(*ast.GenDecl); ok {
					src.add(d)
				}
			}
		}
	}
	return src
}

var valuesOf = regexp.MustCompile(`^Values of (\w+\.\w+)`)

func (src *sources) add(d *ast.GenDecl) {
	if d.Tok == token.TYPE {
		for _, s := range d.Specs {
			if s := s.(*ast.TypeSpec); s != nil {
				if st, ok := s.Type.(*ast.StructType); ok {
					src.structs[s.Name.Name] = st
				}
			}
		}
	}
	if d.Tok != token.CONST || d.Doc == nil {
		return
	}
	first, _, _ := strings.Cut(d.Doc.Text(), "\n")
	src.consts[first] = d
	if m := valuesOf.FindStringSubmatch(first); m != nil {
		for _, v := range src.constants(d) {
			src.values[m[1]] = append(src.values[m[1]], "`"+v.value+"`")
		}
	}
}

type constant struct{ value, comment string }

func (src *sources) constants(d *ast.GenDecl) (out []constant) {
	src.t.Helper()
	for _, s := range d.Specs {
		s := s.(*ast.ValueSpec)
		for i, v := range s.Values {
			lit, ok := v.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				continue
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				src.t.Fatalf("%s: %v", s.Names[i].Name, err)
			}
			out = append(out, constant{text, comment(s.Doc, s.Comment)})
		}
	}
	return out
}

// comment is what is written above something, or else after it, on one line.
func comment(above, after *ast.CommentGroup) string {
	text := above.Text()
	if text == "" {
		text = after.Text()
	}
	return strings.Join(strings.Fields(text), " ")
}

// table has a row for every constant of the block whose comment begins with a line.
// The rest of that comment stands above it.
func (src *sources) table(line, column string) string {
	d := src.consts[line]
	if d == nil {
		src.t.Fatalf("no block of constants is commented %q", line)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | meaning |\n| --- | --- |\n", column)
	for _, c := range src.constants(d) {
		if c.comment == "" {
			src.t.Errorf("%q, of %q, has no comment", c.value, line)
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.value, c.comment)
	}
	return b.String()
}

// field is one row of the table of a kind of document.
type field struct {
	path, values, def, meaning string
	required                   bool
}

// refused are fields that a struct has for one of its places only: the others refuse them.
// TestDecodePolicy of desired/hostpolicy holds that.
var refused = regexp.MustCompile(`^root\..*\.changeOwner$`)

// fields are those of a struct and of the structs in it, in the order of the source.
func (src *sources) fields(typ, path string) (out []field) {
	src.t.Helper()
	st := src.structs[typ]
	if st == nil {
		src.t.Fatalf("there is no struct %s", typ)
	}
	for _, f := range st.Fields.List {
		elem, list := element(f.Type)
		if len(f.Names) == 0 { // embedded
			out = append(out, src.fields(elem, path)...)
			continue
		}
		if f.Tag == nil {
			continue
		}
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			src.t.Fatal(err)
		}
		name, omit, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if name == "-" || name == "" {
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		if refused.MatchString(at) {
			continue
		}
		row := field{path: at, values: src.valuesFor(typ+"."+f.Names[0].Name, elem, list), required: omit == ""}
		row.meaning, row.def = cutDefault(comment(f.Doc, f.Comment))
		if src.structs[elem] == nil || row.meaning != "" {
			out = append(out, row)
		}
		if src.structs[elem] != nil && elem != typ {
			if list {
				at += "[]"
			}
			out = append(out, src.fields(elem, at)...)
		}
	}
	return out
}

// element is the name of the type of a field, or of the items of a list of it.
func element(e ast.Expr) (name string, list bool) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return element(e.X)
	case *ast.ArrayType:
		name, _ = element(e.Elt)
		return name, true
	case *ast.MapType:
		return "map", false
	case *ast.SelectorExpr:
		return e.Sel.Name, false
	case *ast.Ident:
		return e.Name, false
	}
	return "", false
}

// kinds are what authors write for a type.
var kinds = map[string]string{
	"string": "text", "Resources": "an object", "bool": "`true`, `false`", "map": "texts by name", "Duration": "a duration, `10s`", "Bytes": "a size, `64Mi`",
	"CPU": "`500m`, `2`", "Signal": "a signal", "int": "a number", "int64": "a number", "uint16": "a number", "uint32": "a number", "Addresses": "an address, or a list", "uint64": "a number", "Time": "a time",
}

func (src *sources) valuesFor(name, elem string, list bool) string {
	v := kinds[elem]
	switch {
	case src.values[name] != nil:
		return strings.Join(src.values[name], ", ")
	case src.structs[elem] != nil:
		v = "an object"
		if list {
			v = "objects"
		}
	case list && elem == "string":
		v = "texts"
	case list:
		v = "numbers"
	}
	if list {
		v = "a list of " + v
	}
	return v
}

var defaultAt = regexp.MustCompile(`(?:^| )Default: ([^.]+)\.$`)

// cutDefault takes "Default: X." from the end of a comment.
func cutDefault(text string) (meaning, def string) {
	if m := defaultAt.FindStringSubmatchIndex(text); m != nil {
		return text[:m[0]], text[m[2]:m[3]]
	}
	return text, ""
}

// defaultsOf are the values that a document has which says nothing.
func defaultsOf(t *testing.T, document any) map[string]string {
	t.Helper()
	b, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, v := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), v)
			}
		case []any:
			items := []string{}
			for _, item := range v {
				items = append(items, fmt.Sprintf("`%v`", item))
			}
			out[path] = strings.Join(items, ", ")
		case string:
			if strings.HasSuffix(v, "m0s") {
				v = strings.TrimSuffix(v, "0s")
			}
			out[path] = "`" + v + "`"
		default:
			out[path] = fmt.Sprintf("`%v`", v)
		}
	}
	walk("", v)
	return out
}

// inputTable explains every field of a kind of document. A default is what the
// comment says, or else what the code fills in.
func (src *sources) inputTable(typ, prefix string, defaults map[string]string) string {
	var b strings.Builder
	b.WriteString("| field | value | default | meaning |\n| --- | --- | --- | --- |\n")
	for _, f := range src.explained(typ) {
		switch {
		case f.required:
			f.def = "required"
		case f.def == "":
			f.def = defaults[f.path]
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.TrimPrefix(f.path, prefix), f.values, f.def, f.meaning)
	}
	return b.String()
}

// ofSandbox are rows of fields that are explained with those of a Sandbox.
var ofSandbox = regexp.MustCompile("(?m)^\\| `spec\\.(template\\.|env\\[\\]\\.|volumes\\[\\]\\.).*\n")

// outline is a table without those rows.
func outline(table string) string { return ofSandbox.ReplaceAllString(table, "") }

// outputTable explains every field of something that is printed.
func (src *sources) outputTable(typ string) string {
	var b strings.Builder
	b.WriteString("| field | value | meaning |\n| --- | --- | --- |\n")
	for _, f := range src.explained(typ) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.path, f.values, f.meaning)
	}
	return b.String()
}

func (src *sources) explained(typ string) []field {
	fields := src.fields(typ, "")
	for _, f := range fields {
		if f.meaning == "" {
			src.t.Errorf("%s of %s has no comment", f.path, typ)
		}
	}
	return fields
}

var mark = regexp.MustCompile(`(?s)(<!-- made by make reference: (.+?) -->\n).*?(<!-- end -->\n)`)

// TestReference: the tables of docs/reference are what the code says.
func TestReference(t *testing.T) {
	t.Parallel()
	status := readSources(t, "reconcile/*.go", "actual/*.go", "desired/yamldoc/problem.go")
	directory := readSources(t, "desired/snapshot.go")
	manifest := readSources(t, "desired/types.go", "desired/lifetime/*.go", "desired/fromsnapshot/*.go", "desired/object.go", "desired/declared.go", "desired/network_document.go", "desired/pool.go", "desired/networks/*.go")
	policy := readSources(t, "desired/hostpolicy/policy.go", "desired/hostpolicy/cni.go", "desired/hostpolicy/clients.go", "desired/hostpolicy/snapshots.go")
	minimal := &desired.Sandbox{Spec: desired.Spec{Root: desired.Root{Host: &desired.HostRoot{}}}}
	desired.Default(minimal)
	builtIn := defaultsOf(t, hostpolicy.Default())
	for page, tables := range map[string]map[string]string{
		"manifest": {
			"fields": manifest.inputTable("Sandbox", "spec.", defaultsOf(t, minimal)), "fields of a Config": manifest.inputTable("Config", "", nil), "fields of a Secret": manifest.inputTable("Secret", "", nil), "fields of a Volume": manifest.inputTable("VolumeDocument", "", nil), "fields of a Network": manifest.inputTable("NetworkDocument", "", nil),
			"fields of a SandboxPool": outline(manifest.inputTable("PoolDocument", "", nil)), "fields of a SandboxClaim": outline(manifest.inputTable("ClaimDocument", "", nil)),
		},
		"policy": {"fields": policy.inputTable("Policy", "", builtIn)},
		"status": {
			"phases":              status.table("Phases, one word for a table. Conditions tell the rest.", "phase"),
			"phases of a start":   status.table("Phases of a start, in their order. Each ends where the next one begins.", "phase"),
			"conditions":          status.table("Condition types.", "type"),
			"why an operation":    status.table("Why an operation is begun.", "reason"),
			"how a run ended":     status.table("How a run ended. Some of the reasons above say this too.", "reason"),
			"more conditions":     status.table("More reasons of conditions.", "reason"),
			"of a problem":        directory.table("Of a problem, and of a sandbox.", "reason"),
			"warnings":            status.table("Recorded warnings. They are in the `warnings` of a status.", "reason"),
			"manifests directory": directory.table("Why the manifests directory is not complete. Nothing is stopped because of what is", "reason"),
			"records":             status.table("Why a record can't be acted on. What runs is left running, and no second one is", "reason"),
			"events":              status.table("Reasons of events.", "event"),
			"fields of a status":  status.outputTable("Status"),
			"fields of a summary": status.outputTable("Summary"),
		},
	} {
		writeTables(t, "docs/reference/"+page+".md", tables)
	}
}

// linked makes links of "see HEADING", where the page has that heading, and of what
// has a page of its own.
func linked(page, text, table string) string {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		table = regexp.MustCompile(`\b(see|See) `+regexp.QuoteMeta(m[1])+`\b`).ReplaceAllString(table, "$1 ["+m[1]+"]("+anchor(m[1])+")")
	}
	if filepath.Base(page) != "policy.md" {
		table = strings.ReplaceAll(table, "host policy", "[host policy](policy.md)")
	}
	return table
}

// withTables is a page with its tables, and what does not fit together.
func withTables(page, text string, tables map[string]string) (string, []string) {
	var wrong []string
	placed := map[string]bool{}
	got := mark.ReplaceAllStringFunc(text, func(s string) string {
		m := mark.FindStringSubmatch(s)
		table, ok := tables[m[2]]
		if !ok || placed[m[2]] {
			wrong = append(wrong, fmt.Sprintf("there is no table %q, or it is there twice", m[2]))
		}
		placed[m[2]] = true
		return m[1] + linked(page, text, table) + m[3]
	})
	for name := range tables {
		if !placed[name] {
			wrong = append(wrong, fmt.Sprintf("there is no place for the table %q", name))
		}
	}
	return got, wrong
}

// writeTables compares the tables of a page, and with -update writes them.
func writeTables(t *testing.T, page string, tables map[string]string) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got, wrong := withTables(page, string(b), tables)
	for _, w := range wrong {
		t.Errorf("%s: %s", page, w)
	}
	switch {
	case got == string(b):
	case !*update:
		t.Errorf("%s is not what the code says; write it with `make reference`", page)
	default:
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The rules of TestReference can fail.
func TestReferenceRules(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- made by make reference: a -->\n", "<!-- end -->\n"
	for name, c := range map[string]struct {
		text, want string
		wrong      int
	}{
		"stale":    {"## Big words\n" + begin + "old\n" + end, "## Big words\n" + begin + "see [Big words](#big-words), of the [host policy](policy.md)\n" + end, 0},
		"no place": {"x\n", "x\n", 1},
		"twice":    {begin + end + begin + end, "", 1},
		"unknown":  {strings.Replace(begin, ": a", ": b", 1) + end, "", 2},
	} {
		got, wrong := withTables("x.md", c.text, map[string]string{"a": "see Big words, of the host policy\n"})
		if len(wrong) != c.wrong || c.want != "" && got != c.want {
			t.Errorf("%s: %q, wrong: %q", name, got, wrong)
		}
	}
	for text, want := range map[string][2]string{
		"Text. Default: 1.": {"Text.", "1"}, "Default: the name.": {"", "the name"}, "A default.": {"A default.", ""}, "Default: x. More.": {"Default: x. More.", ""},
	} {
		if meaning, def := cutDefault(text); meaning != want[0] || def != want[1] {
			t.Errorf("%q is %q and %q", text, meaning, def)
		}
	}
}
