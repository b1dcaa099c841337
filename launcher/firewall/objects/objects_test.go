// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/netns"
)

// Closed connections are kept for a short time, all others as the host says, or else the kernel.
func TestTimeoutsOf(t *testing.T) {
	t.Parallel()
	for want, host := range map[string]Times{
		"tcp_120_60_432000_120_60_30_10_10_120_300_300": {},
		"tcp_1_60_7777_120_60_30_3_2_120_300_9": {
			expr.CtStateTCPSYNSENT: time.Second, expr.CtStateTCPESTABLISHED: 7777 * time.Second, expr.CtStateTCPTIMEWAIT: 3 * time.Second,
			expr.CtStateTCPCLOSE: 2 * time.Second, expr.CtStateTCPUNACK: 9 * time.Second,
		},
		"tcp_120_60_432000_120_60_30_10_10_120_300_301": {
			expr.CtStateTCPTIMEWAIT: time.Hour, expr.CtStateTCPCLOSE: time.Hour, expr.CtStateTCPUNACK: 301 * time.Second,
		},
	} {
		if got := TimeoutsOf(host, Kind); got.Name != want {
			t.Errorf("%s, expected %s", got.Name, want)
		}
	}
}

// What the kernel was told of a table is read, beside the objects of another one.
func TestRead(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	usual, other := TimeoutsOf(Times{}, Kind), TimeoutsOf(Times{expr.CtStateTCPESTABLISHED: time.Hour}, Kind)
	wrong := TimeoutsOf(Times{expr.CtStateTCPLASTACK: time.Second}, Kind)
	wrong.Name = other.Name
	err = ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		for _, name := range []string{"one", "two"} {
			table := c.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
			usual.Add(c, table)
			c.AddObj(&nftables.CounterObj{Table: table, Name: "of_" + name, Bytes: 1 << 40, Packets: 7})
			if name == "one" {
				wrong.Add(c, table)
			}
		}
		if err := c.Flush(); err != nil {
			return err
		}
		counters, timeouts, err := Read("one")
		if n := counters["of_one"]; err != nil || len(counters) != 1 || n == nil || n.Bytes != 1<<40 || n.Packets != 7 {
			t.Errorf("counters %v: %v", counters, err)
		}
		if want := map[string]bool{usual.Name: true, other.Name: false}; !maps.Equal(timeouts, want) {
			t.Errorf("timeouts %v, expected %v", timeouts, want)
		}
		if counters, timeouts, err := Read("three"); err != nil || len(counters)+len(timeouts) > 0 {
			t.Errorf("%v and %v of no table: %v", counters, timeouts, err)
		}
		before, err := c.ListTables()
		if err != nil {
			return err
		}
		if err := usual.Probe(); err != nil {
			t.Errorf("this kernel has them: %v", err)
		}
		none := TimeoutsOf(Times{}, 99)
		if err := none.Probe(); !errors.Is(err, ErrLacking) {
			t.Errorf("%v, expected %v", err, ErrLacking)
		}
		if after, err := c.ListTables(); err != nil || len(after) != len(before) {
			t.Errorf("%d tables after a probe, expected %d: %v", len(after), len(before), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
