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

// userName is what /etc/passwd and /etc/group can tell from other names.
var userName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,255})?$`)
})

func (v *Validator) process(sb *Sandbox) {
	s := &sb.Spec
	if s.Root.Bundle != "" {
		v.bundleOwns(s)
		return
	}
	switch {
	case len(s.Command) == 0 && s.Root.Image != nil:
	case len(s.Command) == 0:
		v.Missing("spec.command", "the program to run and its arguments")
	case s.Command[0] == "":
		v.Add("spec.command[0]", "expected a program, got an empty string")
	}
	for i, a := range s.Command {
		v.noNUL(fmt.Sprintf("spec.command[%d]", i), a)
	}
	for i, a := range s.Args {
		v.noNUL(fmt.Sprintf("spec.args[%d]", i), a)
	}
	switch {
	case s.WorkingDir == "" && s.Root.Image != nil:
	case path.IsAbs(s.WorkingDir):
		v.PathText("spec.workingDir", s.WorkingDir)
	default:
		v.Add("spec.workingDir", "expected an absolute path, got %q", yamldoc.Clip(s.WorkingDir))
	}
	v.user(s.User, s.Root.Image != nil)
	if !validHostname(s.Hostname) {
		v.Add("spec.hostname", "expected a host name (labels of a-z, 0-9 and -, separated by dots, at most 64 bytes), got %q", yamldoc.Clip(s.Hostname))
	}
	v.env(sb)
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
func (v *Validator) user(u *User, inImage bool) {
	if u == nil {
		return
	}
	check := func(field string, id *uint32) {
		switch {
		case id == nil && u.Name == "":
			v.Missing(field, "a number")
		case id != nil && u.Name != "":
			v.Add(field, "can't be set beside name, whose ids are those of the image; remove one of them")
		case id != nil && *id == noID:
			v.Add(field, "expected a number from 0 to %d, got %d", uint32(noID-1), *id)
		}
	}
	check("spec.user.uid", u.UID)
	check("spec.user.gid", u.GID)
	for i := range u.Groups {
		if u.Groups[i] == noID {
			v.Add(fmt.Sprintf("spec.user.groups[%d]", i), "expected a number from 0 to %d, got %d", uint32(noID-1), u.Groups[i])
		}
	}
	switch {
	case u.Name == "":
	case !inImage:
		v.Add("spec.user.name", "is for root.image, which has an /etc/passwd that can be read; use uid and gid")
	case !userName().MatchString(u.Name):
		v.Add("spec.user.name", "expected a name such as nginx, or NAME:GROUP, got %q", yamldoc.Clip(u.Name))
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
		{"envFrom", len(s.EnvFrom) > 0},
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
	if slices.Contains(names, short) || v.Full() {
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
