// SPDX-License-Identifier: Apache-2.0

// Package fields collects what is wrong with the fields of documents, and checks what fields of all
// kinds have: names, words, paths, enumerations. It knows no kind.
package fields

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/yamldoc"
)

// Error is one thing wrong with a field of a manifest.
type Error struct {
	Field   string // path, as in spec.volumes[1].hostPath
	Message string
	// Missing says that a field which is needed is not there. It may have been
	// misspelt.
	Missing bool
}

// ValidName says whether s is a DNS-1123 label, which is what names are.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Validator collects what is wrong with the fields of a document, also of one of
// another package's kinds.
type Validator struct{ errs []Error }

// Errors are everything that was added.
func (v *Validator) Errors() []Error { return v.errs }

// Full says that there are more than anybody reads.
func (v *Validator) Full() bool { return len(v.errs) >= yamldoc.MaxProblems }

// Add adds one thing, unless there are more than anybody reads.
func (v *Validator) Add(field, format string, args ...any) {
	if v.Full() {
		return
	}
	v.errs = append(v.errs, Error{Field: field, Message: fmt.Sprintf(format, args...)})
}

// Missing adds that a field is needed, and what is expected there.
func (v *Validator) Missing(field, want string) {
	if !v.Full() {
		v.errs = append(v.errs, Error{Field: field, Message: "is missing: expected " + want, Missing: true})
	}
}

// Name checks the name of a document.
func (v *Validator) Name(field, s string) {
	if !ValidName(s) {
		v.Add(field, "expected a DNS label (at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit), got %q", yamldoc.Clip(s))
	}
}

// Words checks names and values that are for readers: they are shown on
// terminals, which obey control characters, but for those allowed.
func (v *Validator) Words(field string, words map[string]string, allowed string) {
	for _, k := range slices.Sorted(maps.Keys(words)) {
		if k == "" || !yamldoc.Printable(k, "") {
			v.Add(yamldoc.Join(field, k), "expected a name without control characters, got %q", yamldoc.Clip(k))
		}
		if !yamldoc.Printable(words[k], allowed) {
			v.Add(yamldoc.Join(field, k), "expected text without control characters, got %q", yamldoc.Clip(words[k]))
		}
	}
}

// OneOf checks an enumeration.
func (v *Validator) OneOf(field, s string, allowed ...string) {
	if slices.Contains(allowed, s) || v.Full() {
		return
	}
	if IsPlanned(field, s) {
		v.Add(field, "%s is not supported yet; expected %s", s, Choice(allowed))
		return
	}
	msg := fmt.Sprintf("expected %s, got %q", Choice(allowed), yamldoc.Clip(s))
	if n := yamldoc.Nearest(s, allowed); n != "" {
		msg += fmt.Sprintf("; did you mean %q?", n)
	}
	v.Add(field, "%s", msg)
}

// Choice names the values of an enumeration.
func Choice(allowed []string) string {
	if len(allowed) == 1 {
		return allowed[0]
	}
	return "one of " + strings.Join(allowed, ", ")
}

// HostPath checks a path on the host. What it leads to is checked when it is
// opened, once, without following links.
func (v *Validator) HostPath(field, p string) {
	switch {
	case !path.IsAbs(p):
		v.Add(field, "expected an absolute path, got %q", yamldoc.Clip(p))
	case path.Clean(p) != p:
		v.Add(field, "expected a path without \"..\", \".\" and double or trailing slashes, got %q; did you mean %q?", yamldoc.Clip(p), yamldoc.Clip(path.Clean(p)))
	default:
		v.PathText(field, p)
	}
}

// PathText checks what holds for paths of the host and of the sandbox.
func (v *Validator) PathText(field, p string) {
	longest := 0
	for name := range strings.SplitSeq(p, "/") {
		longest = max(longest, len(name))
	}
	switch {
	case !yamldoc.Printable(p, ""):
		v.Add(field, "expected a path without control characters, got %q", yamldoc.Clip(p))
	case len(p) >= unix.PathMax:
		v.Add(field, "the path has %d bytes, at most %d are possible", len(p), unix.PathMax-1)
	case longest > unix.NAME_MAX:
		v.Add(field, "a name in the path has %d bytes, at most %d are possible", longest, unix.NAME_MAX)
	}
}

// Planned are the values of enumerations that a later version will take. They
// are told from misspelt ones, and never offered.
var Planned = map[string][]string{
	"spec.platform": {"kvm", "ptrace"},
}

// IsPlanned says whether a later version will take a value of an enumeration.
func IsPlanned(field, value string) bool { return slices.Contains(Planned[field], value) }
