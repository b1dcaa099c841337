// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sandboxctl.dev/desired/yamldoc"
)

// group is the first part of APIVersion.
var group, _, _ = strings.Cut(APIVersion, "/")

// isForeign says what a document is that is for another program, "" if it is not or may
// be meant for this one: a manifest with a mistake must not be passed over. It looks at
// the keys of the top level only. name is that of a Sandbox of another program.
func isForeign(text []byte) (what, name string, nodes int) {
	top, ok := yamldoc.TopLevel(text)
	if !ok {
		return "", "", 0
	}
	version, kind := top["apiVersion"], top["kind"]
	switch {
	case version != "":
		if oursMistyped(version, kind) {
			return "", "", 0
		}
		if ManifestKinds.has(kind) {
			name, nodes = nameIn(text)
		}
		return strings.TrimSpace(yamldoc.Clip(version) + " " + yamldoc.Clip(kind)), name, nodes
	case anyLikeOurs(top):
		return "", "", 0
	case bytes.Contains(text, []byte(group)):
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

// isForeignAtLength is isForeign of a text that is too long to be looked at.
func isForeignAtLength(data []byte) bool {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		return !bytes.Contains(data, []byte(group))
	}
	top, ok := yamldoc.TopLevel(data)
	return ok && !bytes.Contains(data, []byte(group)) && (top["apiVersion"] != "" || !anyLikeOurs(top))
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

// oursMistyped says whether an apiVersion is this program's, or was meant to be.
func oursMistyped(version, kind string) bool {
	of, _, hasGroup := strings.Cut(version, "/")
	switch {
	case strings.HasPrefix(APIVersion, version), strings.Contains(strings.ToLower(version), "sandboxctl"):
		return true
	case yamldoc.Nearly(of, group, 3):
		return true
	}
	// Nobody else's core has these kinds.
	return ours(kind) && !(hasGroup && strings.Contains(of, "."))
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
func nameIn(text []byte) (name string, nodes int) {
	root := yamldoc.Glance(text)
	if root == nil {
		return guessName(text), 0
	}
	if n := yamldoc.Field(yamldoc.Field(root, "metadata"), "name"); n != nil && n.Kind == yaml.ScalarNode {
		name = n.Value
	}
	return name, yamldoc.Values(root)
}

// IgnoreFile says, in the syntax of gitignore, which files of its directory and those
// below are not manifests.
const IgnoreFile = ".sandboxctlignore"

// ForeignWarning tells of the documents of a file that are for other programs, nil if
// there are none.
func ForeignWarning(file string, docs []Document) *Warning {
	var what []string
	w := &Warning{Position: Position{File: file}}
	for i := range docs {
		if d := &docs[i]; d.Foreign != "" {
			if len(what) == 0 {
				w.Position = d.Position
			}
			if !slices.Contains(what, d.Foreign) {
				what = append(what, d.Foreign)
			}
			if d.Name != "" {
				w.Names = append(w.Names, d.Name)
			}
		}
	}
	if len(what) == 0 {
		return nil
	}
	if len(what) > 3 {
		what = append(what[:3], "…")
	}
	w.Message = fmt.Sprintf("ignored: not for sandboxctl (%s); name it in %s to hide this", yamldoc.Shown(strings.Join(what, ", ")), IgnoreFile)
	return w
}
