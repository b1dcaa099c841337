// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"strings"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/yamldoc"
)

// maxString is the longest argument, or NAME=VALUE, that a kernel takes. maxStrings bounds the command and the environment of an application together, as
// kernels do: values that refer to one another twice each would double without end, and
// take all of the daemon's memory.
const (
	maxString  = 128<<10 - 1
	maxStrings = 1 << 20
)

// expand replaces the references $(NAME) in s by what lookup finds, as a
// Kubernetes Pod does: a reference to an unknown name stays as it is, so that
// $(date) reaches a shell, and $$ is one dollar sign, so that $$(NAME) is the
// text $(NAME). Values are not expanded again: a value can't inject a reference.
// It ends as soon as there are more bytes than most; fits is false then.
func expand(s string, most int, lookup func(name string) (string, bool)) (_ string, fits bool) {
	if !strings.Contains(s, "$") {
		return s, len(s) <= most
	}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		out.WriteString(before)
		if out.Len() > most {
			return "", false
		}
		if !found {
			return out.String(), true
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
// references replaced. from are the variables that come from files. A value may refer to
// these and to the variables before it in the list; command and args may refer to all.
// An error has names, and no values.
func expandProcess(sb *desired.Sandbox, from []envfile.Variable) (args, env []string, err error) {
	s := &sb.Spec
	e := &expander{vars: make(map[string]string, len(from)+len(s.Env))}
	for _, v := range from {
		e.set(v.Name, v.Value)
	}
	for i, v := range s.Env {
		if v.ReadAtStart() {
			continue // it is among from, if it is told at all
		}
		if v.ValueFrom != nil {
			e.set(v.Name, desired.OwnField(sb, v.ValueFrom.Field))
			continue
		}
		e.set(v.Name, e.expand(v.Value, "spec.env", i))
	}
	for i, a := range s.Command {
		args = append(args, e.argument(a, "spec.command", i))
	}
	for i, a := range s.Args {
		args = append(args, e.argument(a, "spec.args", i))
	}
	if e.err != nil {
		return nil, nil, e.err
	}
	for _, name := range e.order {
		env = append(env, name+"="+e.vars[name])
	}
	if _, given := e.vars["PATH"]; !given {
		env = append(env, DefaultPath)
	}
	return args, env, nil
}

// expander replaces references, as long as what comes of it is not too much.
type expander struct {
	vars  map[string]string
	order []string // of their names
	size  int
	err   error
}

func (e *expander) set(name, value string) {
	if _, again := e.vars[name]; !again {
		e.order = append(e.order, name)
		e.size += len(name) + len("=")
	}
	e.size += len(value) - len(e.vars[name])
	e.vars[name] = value
	if n := len(name) + len("=") + len(value); e.err == nil && n > maxString {
		e.err = fmt.Errorf("variable %s: the name and the value have %d bytes, at most %d are possible; give a large value as a file of a volume", yamldoc.Clip(name), n, maxString)
	}
	e.check()
}

func (e *expander) check() {
	if e.err == nil && e.size > maxStrings {
		e.err = fmt.Errorf("the command and the environment have more than %d bytes, with references replaced; give large values as files of a volume", maxStrings)
	}
}

func (e *expander) argument(s, field string, i int) string {
	s = e.expand(s, field, i)
	e.size += len(s) + len("\x00")
	e.check()
	return s
}

// expand replaces the references in a string, element i of a field.
func (e *expander) expand(s, field string, i int) string {
	if e.err != nil {
		return ""
	}
	out, fits := expand(s, maxString, func(name string) (string, bool) {
		v, ok := e.vars[name]
		return v, ok
	})
	if !fits {
		e.err = fmt.Errorf("%s[%d]: it has more than %d bytes, with references replaced; give a large value as a file of a volume", field, i, maxString)
	}
	return out
}
