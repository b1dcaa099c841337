// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"fmt"
	"net/netip"
	"strings"

	"sandboxctl.dev/desired/yamldoc"
)

// Rule is one parsed entry of Reach.Allow. Exactly one of Prefix, Host, Sandbox and TheHost
// is set.
type Rule struct {
	// Prefix are addresses; not valid if the rule is about something else.
	Prefix netip.Prefix
	// Host is a DNS name, in lower case and without a dot at its end.
	Host string
	// Sandbox is the name of a sandbox on a common network.
	Sandbox string
	// TheHost is the host that sandboxes run on.
	TheHost bool
	// Port is the one port that is meant, 0 all.
	Port uint16
}

// String is the rule as ParseRule reads it.
func (r Rule) String() string {
	var who string
	switch {
	case r.TheHost:
		who = "host"
	case r.Sandbox != "":
		who = "sandbox:" + r.Sandbox
	case r.Host != "":
		who = r.Host
	default:
		if who = r.Prefix.String(); r.Port != 0 && r.Prefix.Addr().Is6() {
			who = "[" + who + "]"
		}
	}
	if r.Port != 0 {
		return fmt.Sprintf("%s:%d", who, r.Port)
	}
	return who
}

// ruleWant describes what ParseRule reads.
const ruleWant = `expected a prefix such as 10.0.0.0/8 or "[fd00::/8]:53", a name such as example.org:443, sandbox:NAME, sandbox:NAME:PORT or host:PORT`

// ParseRule reads one entry of Reach.Allow.
func ParseRule(text string) (Rule, error) {
	if who, ok := strings.CutPrefix(text, "sandbox:"); ok {
		name, port, err := cutPort(who)
		switch {
		case err != nil:
			return Rule{}, err
		case !validLabel(name):
			return Rule{}, fmt.Errorf("expected the name of a sandbox after \"sandbox:\", got %q", yamldoc.Clip(name))
		}
		return Rule{Sandbox: name, Port: port}, nil
	}
	if text == "host" {
		return Rule{}, fmt.Errorf("expected a port of the host, such as host:5432; the host as a whole can't be allowed")
	}
	if who, ok := strings.CutPrefix(text, "host:"); ok {
		port, ok := parsePort(who)
		if !ok {
			return Rule{}, badPort(who)
		}
		return Rule{TheHost: true, Port: port}, nil
	}
	if r, ok, err := parseAddresses(text); ok {
		return r, err
	}
	name, port, err := cutPort(text)
	if err != nil {
		return Rule{}, err
	}
	name, err = ParseName(name)
	if err != nil {
		return Rule{}, fmt.Errorf("%s, got %q: %w", ruleWant, yamldoc.Clip(text), err)
	}
	if isAddr(name) {
		return Rule{}, fmt.Errorf("expected an address without a dot at its end, or a name, got %q", yamldoc.Clip(text))
	}
	if !strings.Contains(name, ".") {
		return Rule{}, fmt.Errorf("expected a name with a dot, got %q; a sandbox of this name is sandbox:%s", yamldoc.Clip(text), yamldoc.Clip(text))
	}
	return Rule{Host: name, Port: port}, nil
}

// parseAddresses reads a prefix or an address, with or without a port; ok is false if the
// text is no attempt at one.
func parseAddresses(text string) (r Rule, ok bool, err error) {
	who, port := text, uint16(0)
	if inner, rest, found := strings.Cut(strings.TrimPrefix(text, "["), "]"); strings.HasPrefix(text, "[") {
		p, valid := parsePort(strings.TrimPrefix(rest, ":"))
		if !found || rest != "" && (!valid || rest[0] != ':') {
			return Rule{}, true, fmt.Errorf("%s, got %q", ruleWant, yamldoc.Clip(text))
		}
		who, port = inner, p
	} else if strings.Count(text, ":") == 1 {
		before, after, _ := strings.Cut(text, ":")
		if !strings.Contains(before, "/") && !isAddr(before) {
			return Rule{}, false, nil
		}
		p, valid := parsePort(after)
		if !valid {
			return Rule{}, true, badPort(after)
		}
		who, port = before, p
	} else if !strings.Contains(text, "/") && !isAddr(text) {
		return Rule{}, false, nil
	}
	p, err := ParsePrefix(who)
	return Rule{Prefix: p, Port: port}, true, err
}

func isAddr(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// ParsePrefix reads a prefix, or an address, which is a prefix of itself. No bit after
// the length may be set: 10.1.2.3/8 is a mistake for 10.1.2.3/32 or 10.0.0.0/8.
func ParsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if a, bad := netip.ParseAddr(text); bad == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("expected a prefix such as 10.0.0.0/8 or fd00::/8, got %q", yamldoc.Clip(text))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("expected an IPv4 prefix as such, got %q; did you mean %q?", yamldoc.Clip(text), p.Addr().Unmap())
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits after its length; did you mean %s, or %s/%d?", text, p.Masked(), p.Addr(), p.Addr().BitLen())
	}
	return p, nil
}

// cutPort takes a port from the end of NAME:PORT.
func cutPort(text string) (name string, port uint16, err error) {
	name, after, found := strings.Cut(text, ":")
	if !found {
		return name, 0, nil
	}
	port, ok := parsePort(after)
	if !ok {
		return "", 0, badPort(after)
	}
	return name, port, nil
}

func badPort(text string) error {
	return fmt.Errorf("expected a port from 1 to 65535, got %q", yamldoc.Clip(text))
}

// ParseName reads a DNS name: labels of letters, digits and hyphens. A dot at the end
// means nothing, and neither does the case.
func ParseName(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	switch {
	case strings.Contains(name, "*"):
		return "", fmt.Errorf("names are given in full, without *")
	case len(name) > 253:
		return "", fmt.Errorf("the name has %d bytes, at most 253 are possible", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if !validLabel(strings.ReplaceAll(label, "_", "x")) {
			return "", fmt.Errorf("%q is no DNS name: its parts have 1 to 63 of a-z, 0-9, - and _", yamldoc.Clip(text))
		}
	}
	return name, nil
}

// validLabel says whether s is a DNS label, as all names of sandboxes and networks are.
func validLabel(s string) bool {
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
