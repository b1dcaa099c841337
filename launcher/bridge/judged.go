// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/firewall/stricter"
	"sandboxctl.dev/launcher/flows"
)

// JudgedFile says by which rules the connections of sandboxes were let through. Manifests
// can become stricter while no daemon runs, and a daemon can be killed between the rules
// and the end of the connections that these forbid.
const JudgedFile = "flows.json"

// maxJudged bounds it: of thousands of sandboxes with hundreds of rules each.
const maxJudged = 64 << 20

// judged is what it has.
type judged struct {
	Version   int                `json:"version"`
	Sandboxes []firewall.Sandbox `json:"sandboxes"`
	// Closed are links that were closed.
	Closed []string `json:"closed,omitempty"`
	// Lost says that there may be connections that no rules have let through: somebody had
	// removed or changed them.
	Lost bool `json:"lost,omitempty"`
}

// knowJudged reads what the program before has written.
func (k *Keeper) knowJudged(records []*actual.Record) {
	if k.judged != nil {
		return
	}
	before, err := k.readJudged()
	if err != nil {
		k.log.Warn("it is not known by which rules connections of sandboxes began: all of them are ended", "err", err)
		before = &judged{Version: version}
		for _, r := range records {
			// As if each had had one port more: no sandbox has a port 0.
			before.Sandboxes = append(before.Sandboxes, firewall.Sandbox{Name: r.Name, Attachments: attachments(r), Ports: []firewall.Port{{}}})
		}
		k.unsure = true
	}
	k.setJudged(before)
}

// setJudged notes by which rules connections may have begun.
func (k *Keeper) setJudged(j *judged) {
	k.judged = j
	past := map[netip.Addr]bool{}
	for i := range j.Sandboxes {
		for _, a := range stricter.Addresses(j.Sandboxes[i].Attachments) {
			past[a] = true
		}
	}
	if k.unsure {
		past = nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.past = past
}

// unused says whether no rule has let a connection of an attachment's addresses through that
// may still be there: nobody had them, or the connections of who did were ended. It is called
// with the mutex held, when the addresses are chosen, and from then on nobody else has them.
func (k *Keeper) unused(chosen []firewall.Attachment) bool {
	return k.past != nil && !slices.ContainsFunc(stricter.Addresses(chosen), func(a netip.Addr) bool { return k.past[a] })
}

// foresee puts rules that are about to be installed beside those of before: connections
// may begin by them although judge never comes, since the program is killed, or the rules
// are gone again when it does. What is not on record may only become stricter.
func (k *Keeper) foresee(rules *firewall.Ruleset) error {
	lost, err := k.missed()
	if err != nil {
		return err
	}
	next := &judged{Version: version, Sandboxes: slices.Clone(k.judged.Sandboxes), Closed: k.judged.Closed, Lost: lost}
	by := map[string][]*firewall.Sandbox{}
	for i := range k.judged.Sandboxes {
		s := &k.judged.Sandboxes[i]
		by[s.Name] = append(by[s.Name], s)
	}
	for i := range rules.Sandboxes {
		s := &rules.Sandboxes[i]
		if !slices.ContainsFunc(by[s.Name], func(o *firewall.Sandbox) bool { return reflect.DeepEqual(o, s) }) {
			next.Sandboxes = append(next.Sandboxes, *s)
		}
	}
	if len(next.Sandboxes) == len(k.judged.Sandboxes) && next.Lost == k.judged.Lost {
		return nil
	}
	if err := k.writeJudged(next); err != nil && len(stricter.Forbidden(rules.Sandboxes, k.judged.Sandboxes)) > 0 {
		return err
	}
	k.setJudged(next)
	return nil
}

// missed is lost before rules are installed. Where it is not known what the table has, it may be
// gone since before this program, and is then on record before it is made again: the next
// program would find it in order if this one were killed before it has judged.
func (k *Keeper) missed() (bool, error) {
	k.mu.Lock()
	known := k.installed != nil
	k.mu.Unlock()
	if known || k.lost() || len(k.judged.Sandboxes) == 0 {
		return k.lost(), nil
	}
	there, err := k.table.There()
	return !there, err
}

// lost says whether rules were not in force for a time, after which nothing was judged yet.
func (k *Keeper) lost() bool { return k.judged.Lost || k.table.Losses() != k.losses }

// end judges, and has the next round do it again after an error: no other sandbox waits for
// connections that can't be ended.
func (k *Keeper) end(rules *firewall.Ruleset) {
	if err := k.judge(rules); err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.unrecorded = errors.Join(k.unrecorded, err)
	}
}

// judge ends the connections that rules forbid which are installed by now, and those of
// sandboxes that are gone. It is part of a round of rules. After an error the next round
// does it again.
func (k *Keeper) judge(rules *firewall.Ruleset) error {
	losses, lost := k.table.Losses(), k.lost()
	if !lost && slices.Equal(k.judged.Closed, rules.Closed) &&
		(len(k.judged.Sandboxes) == 0 && len(rules.Sandboxes) == 0 || reflect.DeepEqual(k.judged.Sandboxes, rules.Sandboxes)) {
		return nil
	}
	addrs, why := stricter.Forbidden(k.judged.Sandboxes, rules.Sandboxes), "rules became stricter, or a sandbox is gone"
	if lost {
		// Whatever began meanwhile was let through by nobody. Which those are is not known;
		// what the rules allow begins again with its next packet.
		addrs, why = stricter.Forbidden(slices.Concat(k.judged.Sandboxes, rules.Sandboxes), nil), "rules were not in force for a time"
	}
	if err := k.forgetFlows(why, addrs...); err != nil {
		return err
	}
	now := &judged{Version: version, Sandboxes: rules.Sandboxes, Closed: rules.Closed}
	if err := k.writeJudged(now); err != nil {
		return err
	}
	k.setJudged(now)
	k.losses = losses
	return nil
}

// forgetFlows ends connections of addresses, and has them count for nobody any more.
func (k *Keeper) forgetFlows(why string, addrs ...netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	n, err := flows.Forget(nil, addrs...)
	if err != nil || n == 0 {
		return err
	}
	k.log.Info("connections of sandboxes ended: "+why, "connections", n)
	k.recount(false)
	return nil
}

// recount has connections that are gone count for nobody. Those that still do after an error
// are looked for again; no start waits for it.
func (k *Keeper) recount(crowded bool) {
	if err := k.table.Recount(crowded, flows.IDs); err != nil {
		k.log.Debug("connections of sandboxes not counted again", "err", err)
	}
}

// endAll ends all connections of a sandbox. Those of addresses that were unused are none that
// a rule has let through, but what others have sent there in vain: to look for some by the
// whole table of the kernel would take most of the time of an attachment.
func (k *Keeper) endAll(rec *actual.Record) error {
	addrs := stricter.Addresses(attachments(rec))
	if len(addrs) == 0 {
		return nil
	}
	k.mu.Lock()
	fresh := k.fresh[rec.Name]
	delete(k.fresh, rec.Name)
	k.mu.Unlock()
	if fresh {
		if has, err := flows.Has(addrs...); err == nil && !has {
			return nil
		}
	}
	return k.forgetFlows("their sandbox is started", addrs...)
}

func (k *Keeper) readJudged() (*judged, error) {
	said := &judged{Version: version}
	err := read(k.store.RootDir(), JudgedFile, maxJudged, said)
	if errors.Is(err, fs.ErrNotExist) {
		return said, nil
	}
	if err == nil && said.Version != version {
		err = fmt.Errorf("its version is %d, expected %d", said.Version, version)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", k.store.Path(), JudgedFile, err)
	}
	return said, nil
}

func (k *Keeper) writeJudged(now *judged) error {
	b, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("encode rules of connections: %w", err)
	}
	// Without a sync, of which each start would wait for four: what undoes it ends the connections too.
	err = crashpoint.Do(crashpoint.FlowsPut, func() error {
		return atomicfile.In{Dir: fsys.Of(k.store.RootDir())}.Publish(JudgedFile, append(b, '\n'), 0o600)
	})
	if err != nil {
		return fmt.Errorf("record by which rules connections were let through: %w", err)
	}
	return nil
}
