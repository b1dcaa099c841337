// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// group is the first part of APIVersion.
var group, _, _ = strings.Cut(APIVersion, "/")

// isForeign says what a document is that is for another program, "" if it is not or may
// be meant for this one: a manifest with a mistake must not be passed over. It looks at
// the keys of the top level only. name is that of a Sandbox of another program.
func isForeign(text []byte) (what, name string, nodes int) {
	top, ok := topLevel(text)
	if !ok {
		return "", "", 0
	}
	version, kind := top["apiVersion"], top["kind"]
	switch {
	case version != "":
		if oursMistyped(version, kind) {
			return "", "", 0
		}
		if kind == Kind {
			name, nodes = nameIn(text)
		}
		return strings.TrimSpace(clip(version) + " " + clip(kind)), name, nodes
	case slices.ContainsFunc(keysOf(top), likeOurs):
		return "", "", 0
	case bytes.Contains(text, []byte(group)):
		return "", "", 0
	}
	// Without a word about what it is, it must at least be whole.
	if len(text) <= MaxDocumentBytes {
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
	top, ok := topLevel(data)
	return ok && !bytes.Contains(data, []byte(group)) && (top["apiVersion"] != "" || !slices.ContainsFunc(keysOf(top), likeOurs))
}

func keysOf(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// likeOurs says whether a key of the top level is one of a manifest's, or was meant to be.
func likeOurs(key string) bool {
	key = strings.ToLower(key)
	for _, k := range []string{"apiversion", "kind", "metadata", "spec", "status"} {
		most := 1
		if len(k) > 6 {
			most = 2
		}
		if nearly(key, k, most) {
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
	case nearly(of, group, 3):
		return true
	}
	// Nobody else's core has these kinds.
	return (kind == Kind || kind == PolicyKind) && !(hasGroup && strings.Contains(of, "."))
}

// topLevel finds the keys of the top level of a document and what stands beside them.
// A list of the top level has the key "-". It does not parse what is below.
func topLevel(text []byte) (map[string]string, bool) {
	trimmed := bytes.TrimSpace(text)
	switch {
	case len(trimmed) > 0 && trimmed[0] == '{':
		return topLevelJSON(trimmed)
	case len(trimmed) > 0 && trimmed[0] == '[':
		return map[string]string{"-": ""}, true
	}
	top := map[string]string{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0, line[0] == '#', line[0] == ' ', line[0] == '\t', bytes.HasPrefix(line, []byte("---")):
			continue
		case line[0] == '-':
			if len(top) == 0 {
				top["-"] = ""
			}
			continue
		}
		key, value, ok := strings.Cut(string(line), ":")
		if !ok || value != "" && value[0] != ' ' && value[0] != '\t' {
			continue // of a text over several lines, or nothing that is YAML
		}
		if len(top) < maxNodes {
			top[strings.Trim(key, `"' `)] = strings.Trim(string(withoutComment([]byte(value))), `"'`)
		}
	}
	return top, len(top) > 0
}

func topLevelJSON(text []byte) (map[string]string, bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return nil, false
	}
	top := map[string]string{}
	for dec.More() && len(top) < maxNodes {
		key, err := dec.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, false
		}
		var s string
		_ = json.Unmarshal(value, &s) // "" for what is no string
		top[fmt.Sprint(key)] = s
	}
	return top, true
}

// parsedNodes is how many values a text has, 0 if it can't be parsed within the limits.
func parsedNodes(text []byte) int {
	root := parsed(text)
	if root == nil || root.Kind == yaml.ScalarNode {
		return 0
	}
	return valuesIn(root)
}

func parsed(text []byte) *yaml.Node {
	if _, depth := nesting(text); depth > maxDepth || marks(text) > maxMarks || len(text) > MaxDocumentBytes {
		return nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) != 1 {
		return nil
	}
	return root.Content[0]
}

// nameIn is metadata.name of a text, and how many values it took to find it.
func nameIn(text []byte) (name string, nodes int) {
	root := parsed(text)
	if root == nil {
		return guessName(text), 0
	}
	return nameOf(root), valuesIn(root)
}

func valuesIn(n *yaml.Node) int {
	sum := 1
	for _, c := range n.Content {
		sum += valuesIn(c)
	}
	return sum
}

// nearly says whether one word is another but for so many letters.
func nearly(a, b string, most int) bool {
	return abs(len(a)-len(b)) <= most && distance(a, b) <= most
}

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
				w.names = append(w.names, d.Name)
			}
		}
	}
	if len(what) == 0 {
		return nil
	}
	if len(what) > 3 {
		what = append(what[:3], "…")
	}
	w.Message = fmt.Sprintf("ignored: not for sandboxctl (%s); name it in %s to hide this", shown(strings.Join(what, ", ")), IgnoreFile)
	return w
}
