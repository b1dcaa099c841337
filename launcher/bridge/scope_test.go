// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/firewall"
)

func filled(d networks.Declared) *networks.Declared {
	d.Fill()
	return &d
}

// docs are the Network documents of one name.
func docs(name string, d networks.Declared) map[string]*networks.Declared {
	return map[string]*networks.Declared{name: filled(d)}
}

// runs has a sandbox run on networks.
func (w *world) runs(name string, join ...string) *actual.Record {
	w.t.Helper()
	rec := w.mustChoose(name, networks.Network{Join: join})
	rec.Phase, rec.Spec = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
	if err := w.k.store.Put(rec); err != nil {
		w.t.Fatal(err)
	}
	return rec
}

// scopes has rules be made, and returns the first attachment of each sandbox in them.
func (w *world) scopes(k *Keeper) map[string]firewall.Attachment {
	w.t.Helper()
	if err := w.ns.Do(k.rules.Do); err != nil {
		w.t.Fatal(err)
	}
	out := map[string]firewall.Attachment{}
	for _, s := range k.installed.Sandboxes {
		out[s.Name] = s.Attachments[0]
	}
	return out
}

func (w *world) next() *Keeper {
	w.t.Helper()
	k, err := New(w.k.store, lookEvery, w.k.log)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// A document that changes changes the rules of what runs, and so does one of the network
// default that comes or goes. A network whose document can't be read stays as closed as it
// is, with the next daemon too, and for sandboxes that are started meanwhile.
func TestScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(func() { _ = w.ns.Do(w.k.table.Remove) })
	w.declared["back"] = filled(networks.Declared{})
	w.runs("web", "default")
	w.runs("db", "back")
	expect := func(what string, k *Keeper, internal, isolated bool, names ...string) {
		t.Helper()
		for name, a := range w.scopes(k) {
			if want := slices.Contains(names, name); a.Internal != (internal && want) || a.Isolated != (isolated && want) {
				t.Errorf("%s: %s: %+v", what, name, a)
			}
		}
	}
	expect("at first", w.k, false, false)
	w.k.Declare(docs("back", networks.Declared{Internal: true}), true)
	expect("closed", w.k, true, false, "db")
	w.k.Declare(docs("back", networks.Declared{Internal: true, Isolation: true}), true)
	expect("isolated", w.k, true, true, "db")
	w.k.Declare(nil, false)
	expect("not readable", w.k, true, true, "db")
	next := w.next()
	expect("not readable, in the next daemon", next, true, true, "db")
	next.Declare(nil, true)
	expect("without a document", next, true, true, "db")
	next.Declare(docs("back", networks.Declared{}), true)
	expect("open again", next, false, false)
	expect("open again, in the next daemon", w.next(), false, false)

	// The network default, which is there without a document.
	next.Declare(docs("default", networks.Declared{Isolation: true}), true)
	expect("default", next, false, true, "web")
	w.k = w.next()
	w.k.Declare(nil, false)
	if rec := w.runs("late", "default"); !rec.Attachments[0].Isolated {
		t.Errorf("started while the document can't be read: %+v", rec.Attachments)
	}
	expect("default, not readable", w.k, false, true, "web", "late")
	w.k.Declare(nil, true)
	expect("default without a document", w.k, false, false)
}

// What the file of a network says is what counts where no document does; one that can't be
// read means that nobody knows, and that nothing is open.
func TestScopeDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(func() { _ = w.ns.Do(w.k.table.Remove) })
	w.runs("web", "default")
	file := filepath.Join(w.k.store.Path(), Directory, "default.json")
	had, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	next := w.next()
	if a := w.scopes(next)["web"]; !a.Internal || !a.Isolated || next.unrecorded == nil {
		t.Errorf("%+v, %v", a, next.unrecorded)
	}
	next.Declare(docs("default", networks.Declared{}), true)
	if a := w.scopes(next)["web"]; a.Internal || a.Isolated || next.unrecorded == nil {
		t.Errorf("with a document: %+v, %v", a, next.unrecorded)
	}
	if err := os.WriteFile(file, had, 0o600); err != nil {
		t.Fatal(err)
	}
	if a := w.scopes(next)["web"]; a.Internal || next.unrecorded != nil {
		t.Errorf("with a file again: %+v, %v", a, next.unrecorded)
	}
	// A file of an earlier version says nothing of it: then the records do.
	if err := os.WriteFile(file, []byte(`{"version": 1, "name": "default", "subnet4": "10.208.0.0/20"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := w.scopes(w.next())["web"]; a.Internal || a.Isolated {
		t.Errorf("of an earlier version: %+v", a)
	}
}

// A scope that can't be written down holds all the same, and is written as soon as it can be.
func TestScopeNotWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(func() { _ = w.ns.Do(w.k.table.Remove) })
	w.runs("web", "default")
	dir := filepath.Join(w.k.store.Path(), Directory)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.k.scopes = map[string]scope{}
	w.k.Declare(docs("default", networks.Declared{Internal: true}), true)
	if a := w.scopes(w.k)["web"]; !a.Internal || w.k.unrecorded == nil {
		t.Errorf("%+v, %v", a, w.k.unrecorded)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if a := w.scopes(w.k)["web"]; !a.Internal || w.k.unrecorded != nil {
		t.Errorf("%+v, %v", a, w.k.unrecorded)
	}
	if a := w.scopes(w.next())["web"]; !a.Internal {
		t.Errorf("in the next daemon: %+v", a)
	}
}

// Subnets are free when a network has neither a document nor a sandbox, by record, choice or
// link, and not before.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declared["back"], w.declared["front"] = filled(networks.Declared{}), filled(networks.Declared{})
	web := w.mustChoose("web", networks.Network{Join: []string{"default", "back"}})
	w.mustChoose("db", networks.Network{Join: []string{"front"}})
	files := func(want ...string) {
		t.Helper()
		var later bool
		if err := w.ns.Do(func() (err error) { later, err = w.k.giveBack(); return err }); err != nil || later {
			t.Fatal(later, err)
		}
		got, err := filepath.Glob(filepath.Join(w.k.store.Path(), Directory, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i] = filepath.Base(got[i])
		}
		for i := range want {
			want[i] += ".json"
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, expected %v", got, want)
		}
	}
	w.k.Declare(docs("back", networks.Declared{}), true)
	files("back", "default", "front")
	web.Phase = actual.PhaseStopped // it keeps its addresses
	w.put(web)
	files("back", "default", "front")
	w.gone("db")
	w.k.Declare(nil, false)
	files("back", "default", "front")
	w.k.Declare(docs("back", networks.Declared{}), true)
	files("back", "default")

	// A choice that is not on record yet.
	w.gone("web")
	w.k.promised["web"] = web.Attachments
	w.k.Declare(nil, true)
	files("back", "default")
	delete(w.k.promised, "web")
	w.k.Declare(docs("back", networks.Declared{}), true)
	files("back")

	// A record that can't be read, and has no second copy, may be on any network.
	dir := filepath.Join(w.k.store.Path(), "sandboxes", "lost")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.k.Declare(nil, true)
	files("back")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	files()
	// One that is chosen anew is recorded again.
	w.mustChoose("web", networks.Network{})
	files("default")
}

// A daemon that is killed before or after a file is removed leaves one of two states, and in
// both of them the next sandbox has an address that nobody has.
func TestGiveBackKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.mustChoose("web", networks.Network{}).Attachments[0]
	w.gone("web")
	w.k = w.next() // the file is there
	if again := w.mustChoose("web", networks.Network{}).Attachments[0]; again.Subnet4 != first.Subnet4 || again.Address4 != first.Address4 {
		t.Errorf("%+v, then %+v", first, again)
	}
	if err := os.Remove(filepath.Join(w.k.store.Path(), Directory, "default.json")); err != nil {
		t.Fatal(err)
	}
	w.k = w.next() // it is gone, and web is there
	db := w.mustChoose("db", networks.Network{}).Attachments[0]
	if db.Address4 == first.Address4 || db.Address6 == first.Address6 {
		t.Errorf("%+v has the address of web, %+v", db, first)
	}
}

// Somebody who changes the pool changes nothing for a network that has sandboxes: all of them
// are on one subnet.
func TestSubnetStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declared["back"] = filled(networks.Declared{Subnet: "10.44.0.0/24"})
	first := w.mustChoose("web", networks.Network{Join: []string{"back"}}).Attachments[0]
	w.declared["back"] = filled(networks.Declared{}) // which is in no pool
	second := w.mustChoose("db", networks.Network{Join: []string{"back"}}).Attachments[0]
	if first.Subnet4 != second.Subnet4 || first.Address4 == second.Address4 {
		t.Errorf("%+v and %+v", first, second)
	}
}
