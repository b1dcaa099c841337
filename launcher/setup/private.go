// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
)

// Private is what the sentry of a sandbox is told and nobody else: it is in no file of
// the state directory, no message and no log.
type Private struct {
	// Process is that of Spec with the values of Variables.
	Process   *specs.Process
	Variables []envfile.Variable
}

// UseFiles puts files into the volumes in memory, by the names of these. One that is to show
// a file that may be missing, and is, is not mounted: what the root has there is seen.
func (st *Setup) UseFiles(files map[string][]MemoryFile) {
	app := st.App()
	for i := 0; i < len(app.Volumes); i++ {
		v := &app.Volumes[i]
		v.Files = files[v.InMemory]
		if v.InMemory != "" && v.SubPath != "" && len(v.Files) == 0 {
			app.Volumes = slices.Delete(app.Volumes, i, i+1)
			at := app.bindAt(i)
			app.Spec.Mounts = slices.Delete(app.Spec.Mounts, at, at+1)
			i--
		}
	}
}

// bindAt is which mount of the spec is that of a volume.
func (c *Container) bindAt(volume int) int {
	for i := range c.Spec.Mounts {
		if IsBind(c.Spec.Mounts[i]) {
			if volume == 0 {
				return i
			}
			volume--
		}
	}
	return -1
}

// IsFile says of a volume in memory whether it is a single file.
func (s *Source) IsFile() bool {
	return s.SubPath != "" && slices.ContainsFunc(s.Files, func(f MemoryFile) bool { return f.Name == s.SubPath })
}

// UsePrivate gives the application of a manifest variables whose values are not
// written down.
func (st *Setup) UsePrivate(sb *desired.Sandbox, vars []envfile.Variable) (err error) {
	if len(vars) == 0 {
		return nil
	}
	p := *st.App().Spec.Process
	if p.Args, p.Env, err = st.expand(sb, vars); err != nil {
		return operation.Precondition(err) // a change of a file mends it
	}
	if st.Image != nil {
		p.Env = st.Image.withHome(&p)
		// Before those of the image: the sentry is told how many of the first ones it must not
		// log.
		of := make(map[string]bool, len(vars))
		for _, v := range vars {
			of[v.Name] = true
		}
		rank := func(e string) int {
			if name, _, _ := strings.Cut(e, "="); of[name] {
				return 0
			}
			return 1
		}
		slices.SortStableFunc(p.Env, func(a, b string) int { return rank(a) - rank(b) })
	}
	st.App().Private, st.App().PrivateEnv = &Private{Process: &p, Variables: vars}, true
	return nil
}

// Process is that of the application as the sentry is told.
func (st *Setup) Process() *specs.Process {
	if p := st.App().Private; p != nil {
		return p.Process
	}
	return st.App().Spec.Process
}

// PrivateVariables is how many variables at the beginning of the environment have
// values that are not written down.
func (st *Setup) PrivateVariables() int {
	if p := st.App().Private; p != nil {
		return len(p.Variables)
	}
	return 0
}

// shortest is the length from which a value is told from ordinary words: a port or
// "on" in a message gives nothing away.
const shortest = 4

// Conceal returns the error with the names of private variables in the place of their
// values. A command that can't be executed, say, may have been given by one.
func (st *Setup) Conceal(err error) error {
	p := st.App().Private
	if p == nil || err == nil {
		return err
	}
	vars := slices.SortedFunc(slices.Values(p.Variables), func(a, b envfile.Variable) int { return cmp.Compare(len(b.Value), len(a.Value)) })
	text := err.Error()
	for _, v := range vars {
		if len(v.Value) >= shortest {
			text = strings.ReplaceAll(text, v.Value, "$("+v.Name+")")
		}
	}
	if text == err.Error() {
		return err
	}
	return &concealed{text, err}
}

// concealed is an error that is told in other words.
type concealed struct {
	text string
	err  error
}

func (c *concealed) Error() string { return c.text }

// Is and As find what the error is of, and not the error that can be printed.
func (c *concealed) Is(target error) bool { return errors.Is(c.err, target) }

// As is Is for types.
func (c *concealed) As(target any) bool { return errors.As(c.err, target) }
