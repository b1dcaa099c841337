// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Closed is how long the kernel keeps a closed connection, with our timeouts, at most. That is for
// packets that come late: who has not got the last acknowledgement sends its FIN again, within
// seconds, and each begins the time anew. All others are kept as long as the kernel would by
// itself: of one that is closed in one direction the answer may be still to come.
const Closed = 10 * time.Second

// Kind is what kernels call such objects.
const Kind = nftables.ObjTypeCtTimeout

// Times are how long a TCP connection is kept in each state, in the order of the kernel.
type Times [expr.CtStateTCPUNACK + 1]time.Duration

// ofKernel are the defaults of the kernel, for what it does not show.
var ofKernel = Times{
	expr.CtStateTCPSYNSENT: 2 * time.Minute, expr.CtStateTCPSYNRECV: time.Minute, expr.CtStateTCPESTABLISHED: 120 * time.Hour,
	expr.CtStateTCPFINWAIT: 2 * time.Minute, expr.CtStateTCPCLOSEWAIT: time.Minute, expr.CtStateTCPLASTACK: 30 * time.Second,
	expr.CtStateTCPTIMEWAIT: 2 * time.Minute, expr.CtStateTCPCLOSE: 10 * time.Second, expr.CtStateTCPSYNSENT2: 2 * time.Minute,
	expr.CtStateTCPRETRANS: 5 * time.Minute, expr.CtStateTCPUNACK: 5 * time.Minute,
}

// Timeouts have the kernel forget closed TCP connections of sandboxes sooner than those of others:
// they are an object that a rule gives a connection when it begins. The zero value is none.
type Timeouts struct {
	// Name says all of it: an object can't be changed, and one with other times has another name.
	Name    string
	kind    nftables.ObjType
	seconds [len(Times{})]uint32
}

// TimeoutsOf are those for a host that keeps connections for such times; kind is Kind, but in
// tests.
func TimeoutsOf(host Times, kind nftables.ObjType) Timeouts {
	p := Timeouts{kind: kind}
	for state, d := range host {
		d = cmp.Or(d, ofKernel[state])
		if state == expr.CtStateTCPTIMEWAIT || state == expr.CtStateTCPCLOSE {
			d = min(d, Closed)
		}
		p.seconds[state] = uint32(d / time.Second)
	}
	p.Name = p.name()
	return p
}

func (p *Timeouts) name() string {
	words := []string{"tcp"}
	for _, s := range p.seconds {
		words = append(words, fmt.Sprint(s))
	}
	return strings.Join(words, "_")
}

// right says whether timeouts that the kernel has are what their name says.
func right(name string, data []byte) bool {
	var p Timeouts
	for kind, value := range Attributes(data) {
		if kind != expr.NFTA_CT_TIMEOUT_DATA {
			continue
		}
		for state, seconds := range Attributes(value) {
			if state >= 1 && int(state) <= len(p.seconds) && len(seconds) == 4 {
				p.seconds[state-1] = binary.BigEndian.Uint32(seconds)
			}
		}
	}
	return p.name() == name
}

// Rule gives a connection the timeouts, if it is one of TCP that begins with this packet.
func (p *Timeouts) Rule() expr.Any { return &expr.Objref{Type: int(p.kind), Name: p.Name} }

// marshals has one object at a time be written: the library writes what it is told into its
// defaults, and takes from these what it is not told. It is told of all states.
var marshals sync.Mutex

// Add makes them in a table.
func (p *Timeouts) Add(c *nftables.Conn, t *nftables.Table) {
	all := expr.CtStatePolicyTimeout{}
	for state, s := range p.seconds {
		all[uint16(state)] = s
	}
	marshals.Lock()
	defer marshals.Unlock()
	c.AddObj(&nftables.NamedObj{Table: t, Name: p.Name, Type: p.kind, Obj: &expr.CtTimeout{L4Proto: unix.IPPROTO_TCP, Policy: all}})
}

// RemoveTimeouts takes those of a name from a table.
func RemoveTimeouts(c *nftables.Conn, t *nftables.Table, name string) {
	c.DeleteObject(&nftables.NamedObj{Table: t, Name: name, Type: Kind})
}

// ErrLacking says that the kernel keeps closed connections of sandboxes like those of others.
var ErrLacking = errors.New("the kernel has no timeouts for connections (CONFIG_NF_CONNTRACK_TIMEOUT, nft_ct)")

// Probe has the kernel make them, in the calling thread's namespace, in a table that is gone when
// the transaction is.
func (p *Timeouts) Probe() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("try timeouts for connections: %w", err)
	}
	t := c.AddTable(&nftables.Table{Name: "sandboxctl-probe", Family: nftables.TableFamilyINet})
	p.Add(c, t)
	c.DelTable(t)
	err = c.Flush()
	for _, lack := range []error{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT} {
		if errors.Is(err, lack) { // of a type of object that it does not know
			return fmt.Errorf("%w: %w", ErrLacking, err)
		}
	}
	return err
}
