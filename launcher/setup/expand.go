// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"strings"

	"sandboxctl.dev/desired"
)

// expand replaces the references $(NAME) in s by what lookup finds, as a
// Kubernetes Pod does: a reference to an unknown name stays as it is, so that
// $(date) reaches a shell, and $$ is one dollar sign, so that $$(NAME) is the
// text $(NAME). Values are not expanded again: a value can't inject a reference.
func expand(s string, lookup func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		text, after := reference(rest, lookup)
		out.WriteString(text)
		s = after
	}
}

// reference is what stands for a dollar sign and the text after it, and the
// text that remains.
func reference(s string, lookup func(name string) (string, bool)) (text, after string) {
	if after, escaped := strings.CutPrefix(s, "$"); escaped {
		return "$", after
	}
	if body, open := strings.CutPrefix(s, "("); open {
		if name, after, closed := strings.Cut(body, ")"); closed {
			if value, known := lookup(name); known {
				return value, after
			}
			return "$(" + name + ")", after
		}
	}
	return "$", s
}

// expandProcess gives the command and the environment of a manifest with their
// references replaced. A value may refer to the variables before it in the
// list; command and args may refer to all.
func expandProcess(s *desired.Spec) (args, env []string) {
	vars := make(map[string]string, len(s.Env))
	lookup := func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
	hasPath := false
	for _, e := range s.Env {
		vars[e.Name] = expand(e.Value, lookup)
		env = append(env, e.Name+"="+vars[e.Name])
		hasPath = hasPath || e.Name == "PATH"
	}
	if !hasPath {
		env = append(env, DefaultPath)
	}
	for _, a := range s.Command {
		args = append(args, expand(a, lookup))
	}
	for _, a := range s.Args {
		args = append(args, expand(a, lookup))
	}
	return args, env
}
