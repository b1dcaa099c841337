// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"maps"
	"reflect"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
)

// scope is who is reached through a network: rules of the host, which change while sandboxes
// run. What is in force is in the file of the network, and is written before the rules are
// installed: a document that can't be read, and the next daemon while that is so, would
// otherwise open again what was closed since the sandboxes were started.
type scope struct {
	// Known says that the rest is in force. Files of earlier versions have nothing of it.
	Known    bool `json:"known"`
	Internal bool `json:"internal,omitempty"`
	Isolated bool `json:"isolated,omitempty"`
}

func scopeOf(d *networks.Declared) scope { return scope{true, d.Internal, d.Isolation} }

// Declare says what Network documents say now; whole says that a network that is not among
// them has none. Rules follow soon, with Want.
func (k *Keeper) Declare(documents map[string]*networks.Declared, whole bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.whole != whole || !maps.EqualFunc(k.documents, documents, func(a, b *networks.Declared) bool { return reflect.DeepEqual(a, b) }) {
		k.redeclared = true
	}
	k.documents, k.whole = documents, whole
}

// said is what is declared of the scope of a network, not known if that can't be told: it
// has no document, or that can't be read. Under the lock.
func (k *Keeper) declared(name string) scope {
	if d := k.documents[name]; d != nil {
		return scopeOf(d)
	}
	// The network default is there without a document too.
	return scope{Known: name == networks.DefaultName && k.whole}
}

// setScopes has on record which scopes are in force for the networks of records, and has
// the records say them. Those of an error are in force all the same, so that the rules of
// none wait for a disk.
func (k *Keeper) setScopes(records []*actual.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	now := map[string]scope{}
	for _, r := range records {
		for i := range r.Attachments {
			name := r.Attachments[i].Network
			if _, done := now[name]; done {
				continue
			}
			s, err := k.decide(name, records)
			now[name] = s
			if err != nil {
				errs = append(errs, err)
				delete(k.scopes, name) // tried again
			} else {
				k.scopes[name] = s
			}
		}
	}
	k.inScope = now
	applyScopes(records, now)
	return errors.Join(errs...)
}

// decide returns the scope of a network, which is on record then.
func (k *Keeper) decide(name string, records []*actual.Record) (scope, error) {
	want, had := k.declared(name), k.scopes[name]
	if had.Known && (!want.Known || want == had) {
		return had, nil
	}
	file, err := k.readSubnets(name)
	switch {
	case err != nil && !want.Known:
		return scope{true, true, true}, err // nobody knows who may be reached
	case err != nil:
		return want, err
	case !want.Known && file.Scope.Known:
		return file.Scope, nil
	case !want.Known:
		return recordedScope(name, records), nil
	case file.Scope == want:
		return want, nil
	}
	file.Version, file.Name, file.Scope = version, name, want
	return want, k.writeSubnets(file)
}

// recordedScope is what sandboxes were started with, the strictest that there is.
func recordedScope(name string, records []*actual.Record) scope {
	s := scope{Known: true}
	for _, r := range records {
		for i := range r.Attachments {
			if a := &r.Attachments[i]; a.Network == name {
				s.Internal, s.Isolated = s.Internal || a.Internal, s.Isolated || a.Isolated
			}
		}
	}
	return s
}

// applyScopes has records say what is in force. Their attachments may be others' too.
func applyScopes(records []*actual.Record, now map[string]scope) {
	for i, r := range records {
		if !slices.ContainsFunc(r.Attachments, func(a actual.Attachment) bool { return now[a.Network].differs(&a) }) {
			continue
		}
		c := *r
		c.Attachments = slices.Clone(r.Attachments)
		for j := range c.Attachments {
			if a := &c.Attachments[j]; now[a.Network].differs(a) {
				a.Internal, a.Isolated = now[a.Network].Internal, now[a.Network].Isolated
			}
		}
		records[i] = &c
	}
}

func (s scope) differs(a *actual.Attachment) bool {
	return s.Known && (a.Internal != s.Internal || a.Isolated != s.Isolated)
}
