// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"sandboxctl.dev/desired/desiredtest"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/yamldoc"
)

// countNodes counts the values of a text that parses.
func countNodes(text []byte) (int, bool) {
	if len(text) > yamldoc.MaxDocumentBytes {
		return 0, false
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return 0, false
	}
	var count func(*yaml.Node) int
	count = func(n *yaml.Node) int {
		sum := 1
		for _, c := range n.Content {
			sum += count(c)
		}
		return sum
	}
	return count(&root) - 1, true
}

// Whatever is in a file: it is done with within the budget, every problem is at
// a place in the file, and what is accepted is valid, comes back from its record
// and can be taken out of the file.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(with("volumes: [{name: a, mountPath: /a, hostPath: /b}]", "resources: {cpu: 1}")))
	f.Add([]byte("apiVersion: " + APIVersion + "\nkind: Config\nmetadata: {name: a}\ndata: {a: b}\nbinaryData: {c: AA==}\nfiles: {d: /e}\n---\n" + minimal))
	f.Add([]byte("apiVersion: " + APIVersion + "\nkind: Secret\nmetadata: {name: a}\ndata: {a: AA==}\nstringData: {b: c}\ntype: Opaque\n"))
	f.Add([]byte(with("envFrom: [{config: a}, {secret: {name: b}, prefix: P_}]", "env: [{name: A, valueFrom: {secret: {name: a, key: b}}}]", "volumes: [{name: a, mountPath: /a, config: {name: a, items: [{key: b, path: c/d}]}}]")))
	f.Add([]byte(with("user: {uid: 1, gid: 2, groups: [3]}", "idMappings: {uids: [{containerID: 0, hostID: 1, size: 2}], gids: [{containerID: 0, hostID: 1, size: 2}]}")))
	for _, b := range corpus(f) {
		f.Add(b)
	}
	for _, text := range hardShapes() {
		f.Add([]byte(text[:min(len(text), 2000)]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > yamldoc.MaxFileBytes {
			b = b[:yamldoc.MaxFileBytes]
		}
		var docs []Document
		var ps []Problem
		c := desiredtest.Measure(t, 5, func() { docs, ps = Decode("f", b) })
		if !c.Within(desiredtest.FuzzSlower) {
			t.Fatalf("%s and %d KiB for %d bytes", c.Time, c.Alloc>>10, len(b))
		}
		again, ps2 := Decode("f", b)
		if !reflect.DeepEqual(docs, again) || !reflect.DeepEqual(ps, ps2) {
			t.Fatalf("two answers: %v %v", ps, ps2)
		}
		lines := 1 + bytes.Count(b, []byte{'\n'})
		for _, p := range ps {
			if p.File != "f" || p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" || p.Name != "" && !ValidFullName(p.Name) {
				t.Fatalf("%+v in a file of %d lines", p, lines)
			}
			if !utf8.ValidString(p.Error()) {
				t.Fatalf("%q is no text", p.Error())
			}
		}
		for _, c := range yamldoc.Split(b, 10) {
			if n, ok := countNodes(c.Text); ok && n > yamldoc.NodesAtMost(c.Text) {
				t.Fatalf("%d values, expected at most %d", n, yamldoc.NodesAtMost(c.Text))
			}
		}
		if len(ps) > 0 {
			return
		}
		if len(docs) == 0 || len(docs) != len(yamldoc.Texts(b)) {
			t.Fatalf("%d documents, %d texts and no problem", len(docs), len(yamldoc.Texts(b)))
		}
		for _, d := range docs {
			if d.Foreign != "" && d.Sandbox == nil {
				continue
			}
			if d.Object != nil {
				checkObject(t, b, &d)
				continue
			}
			checkAccepted(t, b, &d)
		}
	})
}

func checkAccepted(t *testing.T, file []byte, d *Document) {
	t.Helper()
	if d.Sandbox == nil || !ValidName(d.Name) || d.Name != d.Sandbox.Metadata.Name {
		t.Fatalf("accepted %+v", d)
	}
	c, err := Canonical(d.Sandbox)
	if err != nil {
		t.Fatal(err)
	}
	e, err := FromCanonical(c, "f")
	if err != nil || e.Hash != Hash(d.Sandbox) || !HashMatches(e.Hash, d.Sandbox) {
		t.Fatalf("recorded and read again: %v", err)
	}
	for _, p := range []string{d.Sandbox.Spec.Root.Dir, d.Sandbox.Spec.Root.Bundle, d.Sandbox.Spec.WorkingDir} {
		checkPath(t, p, p == d.Sandbox.Spec.WorkingDir)
	}
	for _, v := range d.Sandbox.Spec.Volumes {
		checkPath(t, v.HostPath, false)
		checkPath(t, v.MountPath, false)
	}
	checkWithout(t, file, d)
}

// checkObject: its keys can be files, and its name is no other document's.
func checkObject(t *testing.T, file []byte, d *Document) {
	t.Helper()
	if d.Sandbox != nil || !ValidFullName(d.Name) || ValidName(d.Name) || d.Name != d.Object.Name() {
		t.Fatalf("accepted %+v", d)
	}
	for _, k := range d.Object.Keys() {
		if !d.Object.Has(k) || !objects.ValidKey(k) || !filepath.IsLocal(k) || strings.Contains(k, "/") {
			t.Fatalf("accepted the key %q", k)
		}
		checkPath(t, d.Object.File(k), false)
		if name, key, ok := objects.Referred(d.Name + "/" + k); !ok || name != d.Name || key != k {
			t.Fatalf("%q of %q is read as %q of %q", k, d.Name, key, name)
		}
	}
	checkWithout(t, file, d)
}

func checkWithout(t *testing.T, file []byte, d *Document) {
	t.Helper()
	rest, err := Without("f", file, d.Name)
	if err != nil {
		t.Fatal(err)
	}
	left, _ := Decode("f", rest)
	for _, l := range left {
		if l.Name == d.Name {
			t.Fatalf("%s is left in %q", d.Name, rest)
		}
	}
}

func checkPath(t *testing.T, p string, dots bool) {
	t.Helper()
	if p == "" {
		return
	}
	if !filepath.IsAbs(p) || !dots && filepath.Clean(p) != p || !yamldoc.Printable(p, "") {
		t.Fatalf("accepted the path %q", p)
	}
}
