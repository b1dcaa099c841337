// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Kind is what is counted of packets one by one, and logged on request.
type Kind int

// Of packets that a sandbox sends, and of those that are for it.
const (
	EgressRefused Kind = iota
	IngressRefused
	EgressAllowed
	IngressAllowed
	kinds
)

// kindWords are the words of a kind: of its counter, and of what is logged.
var kindWords = [kinds]struct{ counter, direction, verdict string }{
	{"denied", "egress", "refused"},
	{"barred", "ingress", "refused"},
	{"opened", "egress", "allowed"},
	{"entered", "ingress", "allowed"},
}

// Direction is egress or ingress.
func (k Kind) Direction() string { return kindWords[k].direction }

// Refused says whether the packet was refused; else it was the first one of a connection.
func (k Kind) Refused() bool { return k == EgressRefused || k == IngressRefused }

// logOf begins the prefix of each packet that is logged.
const logOf = "sandboxctl"

func (k Kind) prefix(sandbox string) string {
	return strings.Join([]string{logOf, sandbox, kindWords[k].direction, kindWords[k].verdict}, " ")
}

// Logged reads the prefix of a packet that was logged; ok is false if no rule of ours has it.
func Logged(prefix string) (sandbox string, k Kind, ok bool) {
	words := strings.Split(prefix, " ")
	if len(words) != 4 || !label().MatchString(words[1]) {
		return "", 0, false
	}
	for k := range kinds {
		if k.prefix(words[1]) == prefix {
			return words[1], k, true
		}
	}
	return "", 0, false
}

// Rates of the log, of each sandbox and kind: a guest whose packets are refused all the time
// must neither fill the log nor keep others out of it. What is beyond is counted.
const (
	logPerSecond = 1
	logBurst     = 20
)

// logBytes is how much of a packet is logged: its addresses and ports.
const logBytes = 128

// unlogged is the counter of what was not logged since there was too much of it.
func (k Kind) unlogged() string { return "more-" + kindWords[k].counter }

// count makes the counters of a sandbox, and what is logged of it.
func (p *program) count(s *Sandbox) {
	p.counter("sent_"+s.Name, accept())
	p.counter("received_"+s.Name, nil)
	p.countKind(s, EgressRefused, s.Egress.Log)
	p.countKind(s, IngressRefused, s.Ingress.Log)
	if s.Egress.LogAllowed && p.group != 0 {
		p.countKind(s, EgressAllowed, true)
		p.chain("admitted_"+s.Name, nil, all(jump(kindWords[EgressAllowed].counter+"_"+s.Name)), all(continues("accepted")))
	}
	if s.Ingress.LogAllowed && p.group != 0 {
		p.countKind(s, IngressAllowed, true)
	}
}

// admitted lets a packet of a sandbox to the host itself pass.
func (p *program) admitted(s *Sandbox) []expr.Any {
	if s.Egress.LogAllowed && p.group != 0 {
		return continues("admitted_" + s.Name)
	}
	return continues("accepted")
}

// counter makes a counter with a chain of its name, which the rules end.
func (p *program) counter(name string, then []expr.Any, rules ...rule) {
	p.counters = append(p.counters, name)
	p.chain(name, nil, append([]rule{all(counted(name), then)}, rules...)...)
}

// countKind leads packets of one kind to their counter, and into the log.
func (p *program) countKind(s *Sandbox, k Kind, log bool) {
	name := kindWords[k].counter + "_" + s.Name
	for _, a := range s.Attachments {
		p.lead(kindWords[k].counter, a.Link, name)
	}
	if !log || p.group == 0 {
		p.counter(name, nil)
		return
	}
	more := k.unlogged() + "_" + s.Name
	p.counters = append(p.counters, more)
	p.counter(name, nil, logged(k.prefix(s.Name), p.group), all(counted(more)))
}

func logged(prefix string, group uint16) rule {
	return all(one(
		&expr.Limit{Type: expr.LimitTypePkts, Rate: logPerSecond, Unit: expr.LimitTimeSecond, Burst: logBurst},
		&expr.Log{Key: logPrefix | logGroup | logSnaplen, Data: []byte(prefix), Group: group, Snaplen: logBytes},
	), returns())
}

// Attributes of a log expression that are given.
const (
	logPrefix  = 1 << unix.NFTA_LOG_PREFIX
	logGroup   = 1 << unix.NFTA_LOG_GROUP
	logSnaplen = 1 << unix.NFTA_LOG_SNAPLEN
)
