// SPDX-License-Identifier: Apache-2.0

package contention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
)

func manifest(name string, n networks.Network) *desired.Entry {
	n.Mode = networks.Bridge
	n.Fill()
	sb := &desired.Sandbox{Metadata: desired.Metadata{Name: name}}
	sb.Spec.Network = n
	return &desired.Entry{Sandbox: sb}
}

func publishing(name string, ports ...networks.Port) *desired.Entry {
	return manifest(name, networks.Network{Ports: ports})
}

// world is what an index is made of. It counts how often it is asked.
type world struct {
	records   []actual.Observed
	manifests map[string]*desired.Entry
	idle      map[string]bool
	starting  []*desired.Entry
	asked     int
}

func (w *world) manifest(rec *actual.Record) *desired.Entry {
	w.asked++
	return w.manifests[rec.Name]
}

func (w *world) isIdle(_ *desired.Entry, rec *actual.Record) bool {
	w.asked++
	return w.idle[rec.Name]
}

func (w *world) index() *Index {
	x := New(w.records, w.manifest, w.isIdle)
	for _, e := range w.starting {
		x.Add(e)
	}
	return x
}

// slow answers by a look at all others, as the rule is.
func (w *world) slow(e *desired.Entry) (conflict bool) {
	n := &e.Sandbox.Spec.Network
	mine := func(rec *actual.Record) bool { return rec.Name == e.Sandbox.Metadata.Name }
	var own *actual.Record
	if i := slices.IndexFunc(w.records, func(o actual.Observed) bool { return mine(o.Record) }); i >= 0 {
		own = w.records[i].Record
	}
	var others []*desired.Entry
	for i := range w.records {
		rec := w.records[i].Record
		other := w.manifests[rec.Name]
		younger := own != nil && before(own, rec)
		switch {
		case mine(rec), other == nil:
		case rec.Phase == actual.PhaseStopped && (w.idle[rec.Name] || younger):
		case rec.Phase == actual.PhaseRunning && own != nil && own.Phase == actual.PhaseRunning && younger:
		default:
			others = append(others, other)
		}
	}
	others = append(others, slices.DeleteFunc(slices.Clone(w.starting), func(o *desired.Entry) bool { return o.Sandbox.Metadata.Name == e.Sandbox.Metadata.Name })...)
	return slices.ContainsFunc(others, func(o *desired.Entry) bool {
		reason, _, _ := between(n, n.Published(), o)
		return reason != ""
	})
}

// An index says what a look at all others says, whatever there is.
func TestIndexIsTheRule(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	ips := []string{"", "", "127.0.0.1", "192.0.2.1", "::1"}
	phases := []actual.Phase{actual.PhaseRunning, actual.PhaseRunning, actual.PhaseStopped, actual.PhaseStopped, actual.PhaseStarting, actual.PhaseStopping}
	random := func(name string) *desired.Entry {
		var n networks.Network
		for range r.IntN(3) {
			p := networks.Port{ContainerPort: 80, HostPort: uint16(8000 + r.IntN(6)), HostIP: ips[r.IntN(len(ips))], Protocol: []string{networks.TCP, networks.UDP}[r.IntN(2)]}
			if r.IntN(3) == 0 {
				p.ContainerPort, p.Range = 0, "6000-6002"
			}
			n.Ports = append(n.Ports, p)
		}
		if r.IntN(3) == 0 {
			n.Join, n.Address = []string{[]string{"front", "back"}[r.IntN(2)]}, networks.Addresses{fmt.Sprintf("10.0.0.%d", 5+r.IntN(2))}
		}
		return manifest(name, n)
	}
	conflicts, total := 0, 0
	for range 3000 {
		w := &world{manifests: map[string]*desired.Entry{}, idle: map[string]bool{}}
		for i := range 6 {
			name := fmt.Sprintf("s%d", i)
			e := random(name)
			if r.IntN(8) > 0 {
				w.manifests[name] = e
			}
			if r.IntN(4) > 0 {
				w.records = append(w.records, actual.Observed{Record: &actual.Record{Name: name, Phase: phases[r.IntN(len(phases))], CreatedAt: time.Unix(int64(r.IntN(4)), 0)}})
			} else if r.IntN(2) == 0 {
				w.starting = append(w.starting, e)
			}
			w.idle[name] = r.IntN(4) == 0
		}
		x := w.index()
		for i := range 6 {
			e := w.manifests[fmt.Sprintf("s%d", i)]
			if e == nil {
				continue
			}
			total++
			want := w.slow(e)
			if want {
				conflicts++
			}
			if reason, why := x.Of(e); (reason != "") != want || want && !strings.HasPrefix(why, "spec.network.") {
				t.Fatalf("%s of %+v: %q %q, expected a conflict: %v", e.Sandbox.Metadata.Name, w, reason, why, want)
			}
		}
	}
	if conflicts < total/10 || conflicts > total*9/10 {
		t.Errorf("%d of %d are conflicts: this test sees nothing", conflicts, total)
	}
}

// A pass asks for each of its sandboxes. Each of them is looked at once, whatever the others
// ask for, and also where all of them ask for the same.
func TestPassIsLinear(t *testing.T) {
	t.Parallel()
	for what, port := range map[string]func(i int) uint16{
		"a port for each":  func(i int) uint16 { return uint16(1024 + i) },
		"one port for all": func(int) uint16 { return 8080 },
	} {
		pass := func(sandboxes int) (asked, held int) {
			w := &world{manifests: map[string]*desired.Entry{}}
			for i := range sandboxes {
				name := fmt.Sprintf("s%05d", i)
				w.manifests[name] = publishing(name, networks.Port{ContainerPort: 80, HostPort: port(i)})
				w.records = append(w.records, actual.Observed{Record: &actual.Record{Name: name, Phase: actual.PhaseStopped, CreatedAt: time.Unix(int64(i), 0)}})
			}
			x := w.index()
			for i := range w.records {
				name := w.records[i].Record.Name
				if reason, _ := x.Of(w.manifests[name]); reason == "" {
					x.Add(w.manifests[name])
				}
			}
			for _, of := range x.has {
				for _, p := range []pair{of.running, of.stopped, of.other} {
					for _, h := range p {
						if h != nil {
							held++
						}
					}
				}
			}
			return w.asked, held
		}
		asked, held := pass(1000)
		twice, more := pass(2000)
		if asked != 2000 || twice != 4000 {
			t.Errorf("%s: %d looks for 1000 sandboxes, %d for 2000, expected two for each", what, asked, twice)
		}
		// A question goes through what is held of its keys.
		if held > 8*1000 || more > 8*2000 || more > 2*held {
			t.Errorf("%s: %d are held for 1000 sandboxes, %d for 2000", what, held, more)
		}
	}
}

func BenchmarkPass(b *testing.B) {
	for _, sandboxes := range []int{1000, 10000} {
		b.Run(fmt.Sprint(sandboxes), func(b *testing.B) {
			w := &world{manifests: map[string]*desired.Entry{}}
			for i := range sandboxes {
				name := fmt.Sprintf("s%05d", i)
				w.manifests[name] = publishing(name, networks.Port{ContainerPort: 80, HostPort: uint16(1024 + i)})
				w.records = append(w.records, actual.Observed{Record: &actual.Record{Name: name, Phase: actual.PhaseStopped}})
			}
			for b.Loop() {
				x := w.index()
				for i := range w.records {
					x.Of(w.manifests[w.records[i].Record.Name])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(sandboxes), "ns/sandbox")
		})
	}
}
