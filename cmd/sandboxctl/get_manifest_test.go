// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/ownnotes"
)

// roundTrip prints a manifest and reads it as apply does.
func roundTrip(t interface{ Fatalf(string, ...any) }, sb *desired.Sandbox) *desired.Sandbox {
	var b bytes.Buffer
	if err := printManifest(&b, sb, false); err != nil {
		t.Fatalf("print: %v", err)
	}
	docs, problems := desired.Decode("out.yaml", b.Bytes())
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatalf("apply refuses it: %v\n%s", problems, b.String())
	}
	return docs[0].Sandbox
}

func manifestWith(value string) *desired.Sandbox {
	sb := &desired.Sandbox{
		APIVersion: desired.APIVersion, Kind: desired.Kind,
		Metadata: desired.Metadata{Name: "web"},
		Spec: desired.Spec{
			Root: desired.Root{Host: &desired.HostRoot{}}, Command: []string{"sh", "-c", value}, Args: []string{value},
			Env: []desired.EnvVar{{Name: "A", Value: value}},
		},
	}
	desired.Default(sb)
	return sb
}

// What -o manifest prints says the same when it is applied, whatever text is in
// it: words that YAML reads as something else, and characters that a file may
// hold only in an escape.
func TestManifestRoundTrip(t *testing.T) {
	t.Parallel()
	check := func(t interface{ Fatalf(string, ...any) }, value string) {
		sb := manifestWith(value)
		if got := roundTrip(t, sb); desired.Hash(got) != desired.Hash(sb) {
			t.Fatalf("%q came back as %q", value, got.Spec.Args[0])
		}
	}
	for _, v := range []string{
		"", " ", "no", "No", "y", "on", "true", "null", "~", "1", "-1", "1e3", "0x10", "0o7", ".5", ".inf", "2001-01-01", "12:30:45", "<<", "=",
		"a: b", "- a", "# a", "a #b", "'", `"`, "{", "[a]", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "a\nb", "a\n", "\na", " a", "a ", "\ta", "a\tb",
		"---", "--- a\n--- b", "...", "\r", "a\r\nb", "\x1b[31m", "\x7f", "\u0085", "\u2028", "\u202e", "\ufeff", "ü", "😀",
	} {
		check(t, v)
	}
	rapid.Check(t, func(t *rapid.T) {
		if v := rapid.String().Draw(t, "value"); !bytes.ContainsRune([]byte(v), 0) {
			check(t, v)
		}
	})
}

// A claim is printed as a claim, and what is on record of one without what only a record may say.
func TestManifestOfClaim(t *testing.T) {
	t.Parallel()
	sb := manifestWith("a")
	sb.Metadata.Annotations = map[string]string{ownnotes.Pool: "p", ownnotes.Claim: "v2:x", ownnotes.Deadline: "1s", "b": "c"}
	e := &desired.Entry{Sandbox: sb}
	for kind, claim := range map[string]*desired.Claim{desired.Kind: nil, desired.ClaimKind: {ClaimSpec: desired.ClaimSpec{Pool: "p"}}} {
		e.Claim = claim
		var b bytes.Buffer
		if err := printManifest(&b, document(e), false); err != nil {
			t.Fatal(err)
		}
		docs, problems := desired.Decode("out.yaml", b.Bytes())
		if len(problems) > 0 || len(docs) != 1 || docs[0].Name != "web" || (docs[0].Claim != nil) != (claim != nil) || docs[0].Sandbox.Metadata.Annotations["b"] != "c" {
			t.Errorf("%s: %v\n%s", kind, problems, b.String())
		}
	}
	if len(sb.Metadata.Annotations) != 4 {
		t.Error("the entry was changed")
	}
}

// Every example comes back with the hash it had: to apply it restarts nothing.
func TestManifestOfExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/manifests/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		docs, problems := desired.Decode(name, data)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for _, d := range docs {
			if d.Sandbox == nil {
				continue // of another kind, which get does not print
			}
			if got := roundTrip(t, d.Sandbox); desired.Hash(got) != desired.Hash(d.Sandbox) {
				t.Errorf("%s changed: %+v", name, got.Spec)
			}
		}
	}
}
