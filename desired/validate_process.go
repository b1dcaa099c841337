// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/capability"

	"sandboxctl.dev/desired/yamldoc"
)

// envName is compiled when it is first needed: most runs of the program need it not.
var envName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`) })

func (v *Validator) process(s *Spec) {
	if s.Root.Bundle != "" {
		v.bundleOwns(s)
		return
	}
	switch {
	case len(s.Command) == 0:
		v.missing("spec.command", "the program to run and its arguments")
	case s.Command[0] == "":
		v.Add("spec.command[0]", "expected a program, got an empty string")
	}
	for i, a := range s.Command {
		v.noNUL(fmt.Sprintf("spec.command[%d]", i), a)
	}
	for i, a := range s.Args {
		v.noNUL(fmt.Sprintf("spec.args[%d]", i), a)
	}
	if path.IsAbs(s.WorkingDir) {
		v.pathText("spec.workingDir", s.WorkingDir)
	} else {
		v.Add("spec.workingDir", "expected an absolute path, got %q", yamldoc.Clip(s.WorkingDir))
	}
	v.user(s.User)
	if !validHostname(s.Hostname) {
		v.Add("spec.hostname", "expected a host name (labels of a-z, 0-9 and -, separated by dots, at most 64 bytes), got %q", yamldoc.Clip(s.Hostname))
	}
	v.env(s.Env)
	if c := s.Capabilities; c != nil {
		for i, n := range c.Add {
			v.Capability(fmt.Sprintf("spec.capabilities.add[%d]", i), n)
		}
		for i, n := range c.Drop {
			if !strings.EqualFold(n, "ALL") {
				v.Capability(fmt.Sprintf("spec.capabilities.drop[%d]", i), n)
			}
		}
	}
	v.rlimits(s.Rlimits)
}

// user refuses the id that is none: (uid_t)-1, which system calls take for
// "leave it as it is".
func (v *Validator) user(u *User) {
	if u == nil {
		return
	}
	check := func(field string, id uint32) {
		if id == noID {
			v.Add(field, "expected a number from 0 to %d, got %d", uint32(noID-1), id)
		}
	}
	check("spec.user.uid", u.UID)
	check("spec.user.gid", u.GID)
	for i, g := range u.Groups {
		check(fmt.Sprintf("spec.user.groups[%d]", i), g)
	}
}

const noID = 1<<32 - 1

// bundleOwns refuses the fields that a bundle brings: which of two values
// counts should never be a question.
func (v *Validator) bundleOwns(s *Spec) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"command", len(s.Command) > 0},
		{"args", len(s.Args) > 0},
		{"env", len(s.Env) > 0},
		{"workingDir", s.WorkingDir != ""},
		{"user", s.User != nil},
		{"hostname", s.Hostname != ""},
		{"capabilities", s.Capabilities != nil},
		{"rlimits", len(s.Rlimits) > 0},
	} {
		if f.set {
			v.Add("spec."+f.name, "can't be set with root.bundle: it comes from the bundle's config.json")
		}
	}
}

func (v *Validator) noNUL(field, s string) {
	if strings.ContainsRune(s, 0) {
		v.Add(field, "can't hold a NUL")
	}
}

func validHostname(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for l := range strings.SplitSeq(strings.ToLower(s), ".") {
		if !ValidName(l) {
			return false
		}
	}
	return true
}

func (v *Validator) env(env []EnvVar) {
	seen := map[string]bool{}
	for i, e := range env {
		field := fmt.Sprintf("spec.env[%d].name", i)
		switch {
		case !envName().MatchString(e.Name):
			v.Add(field, "expected the name of an environment variable (letters, digits, _, - and ., not beginning with a digit), got %q", yamldoc.Clip(e.Name))
		case seen[e.Name]:
			v.Add(field, "%s is given twice; remove one of them", e.Name)
		}
		seen[e.Name] = true
		v.noNUL(fmt.Sprintf("spec.env[%d].value", i), e.Value)
	}
}

// CapabilityNames are Linux's capabilities without CAP_, each at the place of its
// number. This kernel is not asked which it has: a manifest is valid or not
// wherever it is read.
var CapabilityNames = sync.OnceValue(func() (names []string) {
	for _, c := range capability.ListKnown() {
		names = append(names, strings.ToUpper(c.String()))
	}
	return names
})

// rlimitNames are Linux's.
var rlimitNames = strings.Fields(`AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK`)

// Capability checks the name of a capability.
func (v *Validator) Capability(field, n string) {
	v.known(field, "capability", strings.TrimPrefix(strings.ToUpper(n), "CAP_"), n, CapabilityNames())
}

func (v *Validator) known(field, what, short, given string, names []string) {
	if slices.Contains(names, short) || v.full() {
		return
	}
	msg := fmt.Sprintf("unknown %s %q", what, yamldoc.Clip(given))
	if n := yamldoc.Nearest(short, names); n != "" {
		msg += fmt.Sprintf("; did you mean %q?", n)
	}
	v.Add(field, "%s", msg)
}

func (v *Validator) rlimits(limits []Rlimit) {
	seen := map[string]bool{}
	for i, r := range limits {
		short := strings.TrimPrefix(strings.ToUpper(r.Type), "RLIMIT_")
		v.known(fmt.Sprintf("spec.rlimits[%d].type", i), "resource limit", short, r.Type, rlimitNames)
		if seen[short] {
			v.Add(fmt.Sprintf("spec.rlimits[%d].type", i), "%s is given twice; remove one of them", short)
		}
		seen[short] = true
		if r.Soft > r.Hard {
			v.Add(fmt.Sprintf("spec.rlimits[%d].soft", i), "expected at most the hard limit %d, got %d", r.Hard, r.Soft)
		}
	}
}
