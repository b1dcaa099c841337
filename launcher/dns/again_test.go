// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sandboxctl.dev/launcher/names"
)

// A port that stays taken is tried less and less often, by whatever it is looked at, and told
// of once; what has changed is told.
func TestListenAgain(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := netip.AddrFrom4([4]byte{127, byte(1 + os.Getpid()%200), byte(nets.Add(1)), 1})
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Upstreams: &Upstreams{}}
	taken, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s.port = taken.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	s.SetDirectory(names.New([]names.Sandbox{{Name: "web", Attachments: []names.Attachment{{Network: "n", Address4: a.Next(), Gateway4: a}}}}))
	open, failed := map[netip.Addr]*listener{}, map[netip.Addr]*failure{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, l := range open {
			l.close()
		}
	}()
	look := func() time.Duration { return s.listen(t.Context(), open, failed, &wg) }
	for i := range 3 {
		if wait := look(); wait <= 0 || wait > listenAgain {
			t.Errorf("look %d: again after %s", i, wait)
		}
	}
	for _, want := range []time.Duration{2 * listenAgain, 4 * listenAgain, 8 * listenAgain, listenMost, listenMost} {
		failed[a].again = time.Now()
		if wait := look(); wait > want || wait < want-time.Second {
			t.Errorf("again after %s, expected %s", wait, want)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines of one failure:\n%s", n, log.String())
	}
	taken.Close()
	failed[a].again = time.Now()
	if wait := look(); wait != 0 || open[a] == nil || len(failed) != 0 {
		t.Errorf("not listened on: again after %s, %v", wait, failed)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "answered again") {
		t.Errorf("%s", log.String())
	}
	// A gateway that nobody needs is not tried.
	failed[a.Next()] = &failure{}
	s.SetDirectory(names.New(nil))
	if wait := look(); wait != 0 || len(open)+len(failed) != 0 {
		t.Errorf("%v, %v, again after %s", open, failed, wait)
	}
}
