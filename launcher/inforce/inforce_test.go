// SPDX-License-Identifier: Apache-2.0

package inforce

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
)

func with(egress string, ports ...networks.Port) *networks.Network {
	n := &networks.Network{Mode: networks.Bridge, Ports: ports, Egress: &networks.Reach{Default: egress}}
	n.Fill()
	return n
}

// started puts the record of a start on disk.
func started(t *testing.T, store *actual.Store, old *actual.Record, n *networks.Network, hash string) *actual.Record {
	t.Helper()
	spec, err := json.Marshal(map[string]any{"spec": map[string]any{"network": n}})
	if err != nil {
		t.Fatal(err)
	}
	if old == nil {
		if err := store.Claim("web"); err != nil {
			t.Fatal(err)
		}
	}
	r := actual.NextAttempt(old, actual.Intent{Name: "web", UID: actual.NewUID(), Spec: spec, SpecHash: hash}, time.Now())
	if err := store.Put(r); err != nil {
		t.Fatal(err)
	}
	return r
}

func newStore(t *testing.T) *actual.Store {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// of is what is in force, by a daemon that has just been started or by one that runs.
func of(t *testing.T, n *Networks, r *actual.Record, wanted *networks.Network) *networks.Network {
	t.Helper()
	var all map[string]*networks.Network
	if wanted != nil {
		all = map[string]*networks.Network{r.Name: wanted}
	}
	got, err := n.Of([]*actual.Record{r}, all)
	if err != nil {
		t.Fatal(err)
	}
	return got[r.Name]
}

// What was taken away from a running sandbox does not come back when its manifest can't be
// read, in this daemon or the next one, also after a start with the manifest on record.
func TestOf(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	loose, tight := with(networks.Allow, networks.Port{ContainerPort: 80, HostPort: 8080}), with(networks.Deny)
	r := started(t, store, nil, loose, "1:a")
	path := filepath.Join(store.Path(), "sandboxes", "web", File)
	n := New(store)
	if got := of(t, n, r, nil); !same(got, loose) {
		t.Errorf("of the record: %+v", got)
	}
	if of(t, n, r, loose); exists(path) {
		t.Error("what the record says is written again")
	}
	if got := of(t, n, r, tight); !same(got, tight) || !exists(path) {
		t.Errorf("changed: %+v", got)
	}
	for what, n := range map[string]*Networks{"this daemon": n, "the next one": New(store)} {
		if got := of(t, n, r, nil); !same(got, tight) {
			t.Errorf("%s, without a manifest: %+v", what, got)
		}
	}
	// It is started again, as its manifest on record has it.
	r = started(t, store, r, loose, "1:a")
	for what, n := range map[string]*Networks{"this daemon": n, "the next one": New(store)} {
		if got := of(t, n, r, nil); !same(got, tight) {
			t.Errorf("%s, started again: %+v", what, got)
		}
	}
	// It is loosened again, to what the record says.
	of(t, n, r, loose)
	if got := of(t, New(store), r, nil); !same(got, loose) {
		t.Errorf("loosened: %+v", got)
	}
	of(t, n, r, tight)
	// Another manifest is on record with the start that it needs.
	other := with(networks.Public)
	r = started(t, store, r, other, "1:b")
	for what, n := range map[string]*Networks{"this daemon": n, "the next one": New(store)} {
		if got := of(t, n, r, nil); !same(got, other) {
			t.Errorf("%s, another manifest: %+v", what, got)
		}
	}
	// Another sandbox of the name has nothing of it.
	of(t, n, r, tight)
	r.UID = actual.NewUID()
	if got := of(t, New(store), r, nil); !same(got, other) {
		t.Errorf("another sandbox: %+v", got)
	}
	if got, err := n.Of(nil, nil); len(got)+len(n.known) != 0 || err != nil {
		t.Errorf("none: %v %v, %v", got, n.known, err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A record has nothing beside it where no network was changed, and then it
// counts. The file is read as it was first written.
func TestFormat(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	r := started(t, store, nil, with(networks.Allow), "1:a")
	dir := filepath.Join(store.Path(), "sandboxes", "web")
	r.UID = "0123456789abcdef0123456789abcdef"
	r.Spec = []byte(`{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"web"},"spec":{"network":{"mode":"bridge","ports":[{"containerPort":80,"hostPort":8080}],"egress":{"default":"public"}}}}`)
	got := of(t, New(store), r, nil)
	if len(got.Published()) != 1 || got.Egress.Otherwise() != networks.Public {
		t.Errorf("%+v", got)
	}
	golden, err := os.ReadFile("testdata/v1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, File), golden, 0o600); err != nil {
		t.Fatal(err)
	}
	n := New(store)
	got = of(t, n, r, nil)
	if len(got.Published()) != 0 || got.Egress.Otherwise() != networks.Deny || len(got.Egress.Rules()) != 1 || len(got.Aliases) != 1 || len(got.ExtraHosts) != 1 {
		t.Errorf("%+v", got)
	}
	// And it is written so.
	of(t, n, r, with(networks.Allow))
	of(t, n, r, got)
	if b, err := os.ReadFile(filepath.Join(dir, File)); err != nil || string(b) != string(golden) {
		t.Errorf("%v:\n%s\nexpected\n%s", err, b, golden)
	}
}

// Who can't tell what is in force lets nothing through, of that sandbox alone, until its
// manifest says it.
func TestDamaged(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	loose := with(networks.Allow, networks.Port{ContainerPort: 80, HostPort: 8080})
	r := started(t, store, nil, loose, "1:a")
	path := filepath.Join(store.Path(), "sandboxes", "web", File)
	other := &actual.Record{Name: "other", UID: "u", Spec: r.Spec}
	for what, text := range map[string]string{"empty": "", "half": `{"version":1,"uid":"`, "newer": `{"version":2}`, "no network": `{"version":1,"uid":"` + r.UID + `","generation":1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := New(store)
		got, err := n.Of([]*actual.Record{r, other}, nil)
		if err == nil || !strings.Contains(err.Error(), "sandboxes/web/"+File) {
			t.Errorf("%s: %v", what, err)
		}
		if w := got["web"]; w == nil || len(w.Published()) > 0 || w.Egress.Otherwise() != networks.Deny || w.Ingress.Otherwise() != networks.Deny {
			t.Errorf("%s: %+v", what, w)
		}
		if o := got["other"]; !same(o, loose) {
			t.Errorf("%s: the other one has %+v", what, o)
		}
		if got := of(t, n, r, loose); !same(got, loose) {
			t.Errorf("%s: by its manifest: %+v", what, got)
		}
		if got := of(t, New(store), r, nil); !same(got, loose) {
			t.Errorf("%s: repaired: %+v", what, got)
		}
	}
}

// What can't be written counts all the same, is told, and is written when that is possible.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	r := started(t, store, nil, with(networks.Allow), "1:a")
	path := filepath.Join(store.Path(), "sandboxes", "web", File)
	n := New(store)
	if of(t, n, r, nil); n.known["web"].network == nil {
		t.Fatal("not known")
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	tight := with(networks.Deny)
	for range 2 {
		got, err := n.Of([]*actual.Record{r}, map[string]*networks.Network{"web": tight})
		if err == nil || got["web"] != tight {
			t.Errorf("%+v, %v", got["web"], err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	of(t, n, r, tight)
	if got := of(t, New(store), r, nil); !same(got, tight) {
		t.Errorf("%+v", got)
	}
}
