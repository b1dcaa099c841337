// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// validateRest validates what is left of a document without the fields that
// have problems already, so that its author sees everything at once. The
// result is never used.
func (w *walker) validateRest(root *yaml.Node, policy *HostPolicy) {
	bad := make(map[string]bool, len(w.problems))
	for _, p := range w.problems {
		bad[p.Field] = true
	}
	if bad["kind"] || bad["apiVersion"] || bad[""] {
		return
	}
	b, err := json.Marshal(plain(root, "", bad))
	if err != nil {
		return
	}
	sb := new(Sandbox)
	if err := json.Unmarshal(b, sb); err != nil {
		return
	}
	Default(sb)
	for _, e := range Validate(sb) {
		if !touches(bad, e.Field) && !(strings.HasPrefix(e.Message, "is missing") && besides(bad, e.Field)) {
			w.report(w.nearest(e.Field), e.Field, "%s", e.Message)
		}
	}
	if policy == nil {
		return
	}
	for _, e := range policy.Check(sb) {
		// What is missing may only be misspelt.
		if _, there := w.at[e.Field]; there && !touches(bad, e.Field) {
			w.denied(e)
		}
	}
}

// denied reports what the host policy does not allow.
func (w *walker) denied(e FieldError) {
	if w.full() {
		return
	}
	w.report(w.nearest(e.Field), e.Field, "%s", e.Message)
	w.problems[len(w.problems)-1].Reason = ReasonPolicyDenied
}

// touches says whether a path is, is in, or contains one of the bad ones.
func touches(bad map[string]bool, path string) bool {
	for b := range bad {
		if within(path, b) || within(b, path) {
			return true
		}
	}
	return false
}

// besides says whether something next to a field is bad. A field that is
// missing there was most likely misspelt.
func besides(bad map[string]bool, path string) bool {
	parent := path[:max(strings.LastIndexByte(path, '.'), 0)]
	for b := range bad {
		if b[:max(strings.LastIndexByte(b, '.'), 0)] == parent {
			return true
		}
	}
	return false
}

func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// plain turns a node into what encoding/json encodes, without the bad paths.
func plain(n *yaml.Node, path string, bad map[string]bool) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			p := join(path, n.Content[i].Value)
			if !bad[p] {
				m[n.Content[i].Value] = plain(n.Content[i+1], p, bad)
			}
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			p := fmt.Sprintf("%s[%d]", path, i)
			if bad[p] {
				// Keep its place: the paths of the others count from it. A null is a zero
				// value of every type.
				list = append(list, nil)
				continue
			}
			list = append(list, plain(c, p, bad))
		}
		return list
	}
	switch n.ShortTag() {
	case "!!int":
		return json.Number(n.Value)
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}
