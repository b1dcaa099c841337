// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"testing"
)

// A manifest with a mistake is none of them.
func TestForeignNot(t *testing.T) {
	t.Parallel()
	for i, text := range []string{
		"apiVersion: sandboxctl.dev/v2\nkind: Sandbox\n",
		"apiVersion: sandboxctl.de/v1alpha1\nkind: Sandbox\n",
		"apiVersion: sandboxclt.dev/v1alpha1\nkind: Sandbox\n",
		"apiVersion: sandboxctl/v1alpha1\nkind: Sandbox\n",
		"apiVersion: v1alpha1\nkind: Sandbox\nmetadata: {name: x}\n",
		"apiVersion: v1\nkind: Sandbox\n",
		"apiVersion: v1\nkind: HostPolicy\n",
		"apiVersion: sandb",
		"apiVersion:\nkind: Sandbox\n",
		"apiVersion: Sandboxctl.dev/v1alpha1\nkind: Sandbox\n",
		"apiversion: sandboxctl.dev/v1alpha1\nkind: Sandbox\n",
		"apVersion: x\nkid: Sandbox\n",
		"Kind: Sandbox\nMetadata: {name: x}\n",
		"kind: Sandbox\nmetadata: {name: x}\n",
		"kind: Pod\n",
		"metadata: {name: x}\nspec: {}\n",
		"spec: {}\n",
		"metdata: {name: x}\n",
		"status: {}\n",
		"",
		"apiVe",
		"# nothing but a comment\n",
		"just text\n",
		"a: [\n",
		"a: b: c\n",
		"{",
		`{"apiVersion": "sandboxctl.dev/v1alpha1", "kind": "Sandbox"`,
		`{"kind": "Sandbox"}`,
		"x: sandboxctl.dev/v1alpha1\n",
		"%YAML 1.2\n---\na: b\n",
		"\x00",
	} {
		docs, problems := Decode("x.yaml", []byte(text))
		if len(problems) == 0 {
			t.Errorf("%d: %q is no problem: %+v", i, text, docs)
		}
	}
}

// Many of them cost no more than manifests do, and the rest of a file is still read.
func TestForeignBesideManifests(t *testing.T) {
	t.Parallel()
	text := ""
	for i := range 20 {
		text += fmt.Sprintf("apiVersion: v1\nkind: Kind%d\n---\n", i)
	}
	docs, problems := Decode("x.yaml", []byte(text+minimal))
	if len(problems) != 0 || len(docs) != 21 || docs[20].Name != "web" || docs[20].Sandbox == nil {
		t.Errorf("%d documents, problems %v", len(docs), problems)
	}
	if w := ForeignWarning("x.yaml", docs); w == nil || len(w.Message) > 150 {
		t.Errorf("warning %+v", w)
	}
	rest, err := Without("x.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n---\n"+minimal), "web")
	if err != nil || string(rest) != "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n" {
		t.Errorf("without web: %q %v", rest, err)
	}
}
