// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"iter"
	"slices"

	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/ownfield"
	"sandboxctl.dev/desired/yamldoc"
)

// maxEnvFrom bounds the files of each of env and envFrom: they are opened at a start.
const maxEnvFrom = 50

func (v *Validator) env(s *Sandbox) {
	v.envFrom(s.Spec.EnvFrom)
	if n := slices.Collect(filesOf(s.Spec.Env)); len(n) > maxEnvFrom {
		v.Add("spec.env", "expected at most %d values of files, got %d; use envFrom", maxEnvFrom, len(n))
		return
	}
	seen := map[string]bool{}
	for i, e := range s.Spec.Env {
		at := fmt.Sprintf("spec.env[%d]", i)
		switch {
		case !envfile.ValidName(e.Name):
			v.Add(at+".name", "expected the name of an environment variable (%s), got %q", envfile.NameRule, yamldoc.Clip(e.Name))
		case seen[e.Name]:
			v.Add(at+".name", "%s is given twice; remove one of them", e.Name)
		}
		seen[e.Name] = true
		v.noNUL(at+".value", e.Value)
		if e.ValueFrom == nil {
			continue
		}
		if e.Value != "" {
			v.Add(at+".valueFrom", "expected value or valueFrom, got both; remove one of them")
		}
		v.envSource(at+".valueFrom", s, e.ValueFrom)
	}
}

// filesOf are the variables that have their values from files and documents, by index.
func filesOf(env []EnvVar) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range env {
			if env[i].ReadAtStart() && !yield(i) {
				return
			}
		}
	}
}

// given counts what is set.
func given(set ...bool) (n int) {
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

// keyRef is the value of a document that a variable has, and the name of the field.
func (s *EnvSource) keyRef() (field string, ref *KeyRef) {
	if s.Config != nil {
		return "config", s.Config
	}
	return "secret", s.Secret
}

func (v *Validator) envSource(at string, s *Sandbox, from *EnvSource) {
	switch {
	case given(from.Field != "", from.File != "", from.Config != nil, from.Secret != nil) == 0:
		v.Missing(at+".field", "a field of the manifest such as metadata.name; or file, the path of a file with the value; or config or secret, a document and a key")
	case given(from.Field != "", from.File != "", from.Config != nil, from.Secret != nil) > 1:
		v.Add(at, "expected one of field, file, config, secret, got several; remove all but one")
	case from.File != "":
		v.HostPath(at+".file", from.File)
		v.envOnChange(at+".onChange", from.OnChange)
	case from.Field == "":
		kind, key := from.keyRef()
		v.keyRef(at+"."+kind, key)
		v.envOnChange(at+".onChange", from.OnChange)
		if from.Optional {
			v.Add(at+".optional", "belongs into %s, beside name and key", kind)
		}
	default:
		if _, err := ownField(s, from.Field); err != nil {
			v.Add(at+".field", "%v", err)
		}
		if from.Optional || from.OnChange != "" {
			v.Add(at, "optional and onChange are for other sources, a field is always there")
		}
	}
}

func (v *Validator) envOnChange(at, value string) {
	if value == OnChangeSignal {
		v.Add(at, "expected one of restart, ignore: nobody can change the environment of a program that runs; give it as a file of a config or secret volume, which takes signal")
		return
	}
	v.OneOf(at, value, OnChangeRestart, OnChangeIgnore)
}

func (v *Validator) envFrom(list []EnvFrom) {
	if len(list) > maxEnvFrom {
		v.Add("spec.envFrom", "expected at most %d sources, got %d", maxEnvFrom, len(list))
		return
	}
	for i, f := range list {
		at := fmt.Sprintf("spec.envFrom[%d]", i)
		switch n := given(f.File != "", f.Config != nil, f.Secret != nil); {
		case n == 0:
			v.Missing(at+".file", "the absolute path of an environment file; or config or secret, the name of a document")
		case n > 1:
			v.Add(at, "expected one of file, config, secret, got several; make them items of their own")
		case f.File != "":
			v.HostPath(at+".file", f.File)
			v.OneOf(at+".format", f.Format, FormatDotenv, FormatRaw)
		case f.Format != "":
			v.Add(at+".format", "is for a file: the values of a document have keys")
		case f.Config != nil:
			v.Name(at+".config.name", f.Config.Name)
		default:
			v.Name(at+".secret.name", f.Secret.Name)
		}
		if f.Prefix != "" && !envfile.ValidName(f.Prefix) {
			v.Add(at+".prefix", "expected the beginning of names of environment variables (%s), got %q", envfile.NameRule, yamldoc.Clip(f.Prefix))
		}
		v.envOnChange(at+".onChange", f.OnChange)
	}
}

// OwnField is the value of a field that a valid manifest names in EnvSource.Field; of an
// address, which the manifest does not have, it is empty.
func OwnField(s *Sandbox, field string) string {
	value, err := ownField(s, field)
	if err != nil {
		return "" // Validate has refused it
	}
	return value
}

func ownField(s *Sandbox, field string) (string, error) {
	m := ownfield.Manifest{Name: s.Metadata.Name, Hostname: s.Spec.Hostname, Labels: s.Metadata.Labels, Annotations: s.Metadata.Annotations, Network: &s.Spec.Network}
	return m.Value(field)
}

// Placed is a manifest in which variables that come from addresses have their values, of a
// sandbox that is about to be started at these places. It is for the start alone: what a
// sandbox is does not depend on which addresses were free.
func Placed(s *Sandbox, at []ownfield.Place) *Sandbox {
	placed := *s
	placed.Spec.Env = slices.Clone(s.Spec.Env)
	for i := range placed.Spec.Env {
		e := &placed.Spec.Env[i]
		if e.ValueFrom == nil {
			continue
		}
		if value, ok := ownfield.Address(e.ValueFrom.Field, at); ok {
			e.Value, e.ValueFrom = value, nil
		}
	}
	return &placed
}

// ReadAtStart says whether a variable has its value from a file or a document.
func (e *EnvVar) ReadAtStart() bool {
	f := e.ValueFrom
	return f != nil && (f.File != "" || f.Config != nil || f.Secret != nil)
}

// withFields is a spec in which variables that come from fields have their values:
// what a sandbox has of its own labels is a part of what it is.
func withFields(s *Sandbox) Spec {
	spec := s.Spec
	if !slices.ContainsFunc(spec.Env, func(e EnvVar) bool { return e.ValueFrom != nil && e.ValueFrom.Field != "" }) {
		return spec
	}
	spec.Env = slices.Clone(spec.Env)
	for i := range spec.Env {
		if e := &spec.Env[i]; e.ValueFrom != nil && e.ValueFrom.Field != "" {
			e.Value = OwnField(s, e.ValueFrom.Field)
		}
	}
	return spec
}
