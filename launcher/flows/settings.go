// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Settings are how many connections the kernel keeps in the namespace of this process, and
// for how long: of datagrams and echoes without an answer, of TCP without one, of other
// protocols, and of TCP with nothing to say; and of TCP in each state, in the order of
// linux/netfilter/nfnetlink_cttimeout.h.
type Settings struct {
	Max                                int
	Datagrams, TCP, Other, Established time.Duration
	States                             [len(states)]time.Duration
}

// states are how the kernel's settings call them; of SYN_SENT2 there is none.
var states = [...]string{"syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "syn_sent2", "max_retrans", "unacknowledged"}

// settings is where the kernel shows them, when it tracks connections.
const settings = "/proc/sys/net/netfilter"

// Look reads the settings. What the kernel does not show is zero.
func Look() Settings { return look(settings) }

func look(dir string) (s Settings) {
	s.Max = number(dir, "nf_conntrack_max")
	longest := func(names ...string) (out time.Duration) {
		for _, n := range names {
			out = max(out, time.Duration(number(dir, "nf_conntrack_"+n))*time.Second)
		}
		return out
	}
	s.Datagrams = longest("udp_timeout", "icmp_timeout", "icmpv6_timeout")
	// One that begins in the middle is kept as one that waits for an acknowledgement.
	s.TCP = longest("tcp_timeout_syn_sent", "tcp_timeout_unacknowledged", "tcp_timeout_max_retrans")
	s.Other = longest("generic_timeout", "gre_timeout", "sctp_timeout_closed", "sctp_timeout_cookie_wait", "dccp_timeout_request", "dccp_timeout_respond")
	s.Established = longest("tcp_timeout_established", "udp_timeout_stream", "sctp_timeout_established", "gre_timeout_stream")
	for i, state := range states {
		s.States[i] = longest("tcp_timeout_" + state)
	}
	return s
}

func number(dir, name string) int {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0 // the kernel does not have it
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// assumed is how many connections a small host keeps, where the kernel does not say.
const assumed = 1 << 16

// Each is how many connections one sandbox may have if nothing says how many: a sixteenth
// of what the host has room for.
func (s Settings) Each() int { return max(s.room()/16, 256) }

// Most is the most that one sandbox may be allowed: a quarter.
func (s Settings) Most() int { return max(s.room()/4, 256) }

func (s Settings) room() int {
	if s.Max == 0 {
		return assumed
	}
	return s.Max
}
