// SPDX-License-Identifier: Apache-2.0

// Package foreign tells documents that are for other programs from manifests with mistakes.
package foreign

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sandboxctl.dev/desired/yamldoc"
)

// Program is what documents of this program have in common.
type Program struct {
	APIVersion string
	// Kind is that of documents whose name is told even if they are for another program.
	Kind string
	// Kinds are those that no other program has.
	Kinds []string
	// ValidName says whether a text can be the name of a document.
	ValidName func(string) bool
}

// group is the first part of APIVersion.
func (p *Program) group() string {
	group, _, _ := strings.Cut(p.APIVersion, "/")
	return group
}

// Foreign says what a document is that is for another program, "" if it is not or may
// be meant for this one: a manifest with a mistake must not be passed over. It looks at
// the keys of the top level only. name is that of one of Kind of another program.
func (p *Program) Foreign(text []byte) (what, name string, nodes int) {
	top, ok := yamldoc.TopLevel(text)
	if !ok {
		return "", "", 0
	}
	version, kind := top["apiVersion"], top["kind"]
	switch {
	case version != "":
		if p.mistyped(version, kind) {
			return "", "", 0
		}
		if kind == p.Kind {
			name, nodes = p.nameIn(text)
		}
		return strings.TrimSpace(yamldoc.Clip(version) + " " + yamldoc.Clip(kind)), name, nodes
	case anyLikeOurs(top):
		return "", "", 0
	case bytes.Contains(text, []byte(p.group())):
		return "", "", 0
	}
	// Without a word about what it is, it must at least be whole.
	if len(text) <= yamldoc.MaxDocumentBytes {
		if nodes = parsedNodes(text); nodes == 0 {
			return "", "", 0
		}
	}
	return "another file", "", nodes
}

// ForeignAtLength is Foreign of a text that is too long to be looked at.
func (p *Program) ForeignAtLength(data []byte) bool {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		return !bytes.Contains(data, []byte(p.group()))
	}
	top, ok := yamldoc.TopLevel(data)
	return ok && !bytes.Contains(data, []byte(p.group())) && (top["apiVersion"] != "" || !anyLikeOurs(top))
}

func anyLikeOurs(top map[string]string) bool {
	for k := range top {
		if likeOurs(k) {
			return true
		}
	}
	return false
}

// likeOurs says whether a key of the top level is one of a manifest's, or was meant to be.
func likeOurs(key string) bool {
	key = strings.ToLower(key)
	for _, k := range []string{"apiversion", "kind", "metadata", "spec", "status"} {
		most := 1
		if len(k) > 6 {
			most = 2
		}
		if yamldoc.Nearly(key, k, most) {
			return true
		}
	}
	return false
}

// mistyped says whether an apiVersion is this program's, or was meant to be.
func (p *Program) mistyped(version, kind string) bool {
	of, _, hasGroup := strings.Cut(version, "/")
	switch {
	case strings.HasPrefix(p.APIVersion, version), strings.Contains(strings.ToLower(version), "sandboxctl"):
		return true
	case yamldoc.Nearly(of, p.group(), 3):
		return true
	}
	// Nobody else's core has these kinds.
	return slices.Contains(p.Kinds, kind) && !(hasGroup && strings.Contains(of, "."))
}

// parsedNodes is how many values a text has, 0 if it can't be parsed within the limits.
func parsedNodes(text []byte) int {
	root := yamldoc.Glance(text)
	if root == nil || root.Kind == yaml.ScalarNode {
		return 0
	}
	return yamldoc.Values(root)
}

// nameIn is metadata.name of a text, and how many values it took to find it.
func (p *Program) nameIn(text []byte) (name string, nodes int) {
	root := yamldoc.Glance(text)
	if root == nil {
		return yamldoc.GuessName(text, p.ValidName), 0
	}
	if n := yamldoc.Field(yamldoc.Field(root, "metadata"), "name"); n != nil && n.Kind == yaml.ScalarNode {
		name = n.Value
	}
	return name, yamldoc.Values(root)
}
