// SPDX-License-Identifier: Apache-2.0

// Package fromsnapshot is what manifests say of the snapshot that a sandbox begins from: the fields
// and their rules.
package fromsnapshot

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"time"

	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// Snapshot says what each start of a sandbox begins from. It is among the fields of Lifecycle: a
// change applies to the next start, and restarts nothing.
type Snapshot struct {
	// The name of a snapshot, made with `sandboxctl snapshot create`. The host policy must allow it.
	// One that is missing or does not fit is told by a warning, and the start is a fresh one.
	From string `json:"from"`
	// What is run in the sandbox after each restore, before the sandbox is ready.
	OnRestore *OnRestore `json:"onRestore,omitempty"`
}

// OnRestore is a command in the sandbox.
type OnRestore struct {
	// The program and its arguments, run as the application was: its user and working directory,
	// and the environment of the manifest. Another exit code than 0 is a failed start.
	Exec []string `json:"exec"`
	// How long it may take, at most `10m`. Longer is a failed start.
	Timeout *scalar.Duration `json:"timeout,omitempty"`
}

// Bounds of OnRestore.Timeout.
const (
	DefaultTimeout = 30 * time.Second
	mostTimeout    = 10 * time.Minute
)

// maxArgs bounds the command.
const maxArgs = 1000

// Required are the fields that can't be left out, Examples show what the types look like.
var (
	Required = map[reflect.Type]map[string]string{
		reflect.TypeFor[Snapshot]():  {"from": "the name of a snapshot"},
		reflect.TypeFor[OnRestore](): {"exec": "a program and its arguments"},
	}
	Examples = map[reflect.Type]string{
		reflect.TypeFor[Snapshot]():  `{from: python}`,
		reflect.TypeFor[OnRestore](): `{exec: [/usr/local/bin/reseed]}`,
	}
	ListExamples = map[string]string{"exec": `[/usr/local/bin/reseed]`}
)

// Fill gives the fields that were left out their defaults.
func (s *Snapshot) Fill() {
	if s != nil && s.OnRestore != nil {
		s.OnRestore.Timeout = cmp.Or(s.OnRestore.Timeout, new(scalar.Duration(DefaultTimeout)))
	}
}

// Check reports what is wrong with the fields below path. validName says what a name is.
func (s *Snapshot) Check(path string, validName func(string) bool, report func(field, format string, args ...any)) {
	if s == nil {
		return
	}
	if !validName(s.From) {
		report(path+".from", "expected the name of a snapshot, a DNS label, got %q; `sandboxctl snapshot ls` lists them", yamldoc.Clip(s.From))
	}
	r := s.OnRestore
	if r == nil {
		return
	}
	switch {
	case len(r.Exec) == 0 || r.Exec[0] == "":
		report(path+".onRestore.exec", "expected a program and its arguments, as in [/usr/local/bin/reseed]")
	case len(r.Exec) > maxArgs:
		report(path+".onRestore.exec", "expected at most %d words, got %d; put them into a script", maxArgs, len(r.Exec))
	}
	for i, a := range r.Exec {
		if strings.ContainsRune(a, 0) {
			report(fmt.Sprintf("%s.onRestore.exec[%d]", path, i), "expected text without a zero byte")
		}
	}
	if t := r.Timeout; t != nil && (time.Duration(*t) <= 0 || time.Duration(*t) > mostTimeout) {
		report(path+".onRestore.timeout", "expected more than 0s and at most %s, got %s", mostTimeout, time.Duration(*t))
	}
}

// Any in Allowed is any snapshot.
const Any = "*"

// Allowed says whether a list of names, or of beginnings of names that end with *, has a name.
func Allowed(list []string, name string) bool {
	for _, l := range list {
		if beginning, ok := strings.CutSuffix(l, Any); l == name || ok && strings.HasPrefix(name, beginning) {
			return true
		}
	}
	return false
}

// CheckAllowed reports what is wrong with such a list.
func CheckAllowed(field string, list []string, validName func(string) bool, report func(field, format string, args ...any)) {
	for i, l := range list {
		beginning, ok := strings.CutSuffix(l, Any)
		if ok {
			beginning += "x"
		}
		if !validName(beginning) {
			report(fmt.Sprintf("%s[%d]", field, i), "expected the name of a snapshot, or its beginning and *, such as python-*, got %q", yamldoc.Clip(l))
		}
	}
}
