// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/rounds"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/dns"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/flows"
	"sandboxctl.dev/launcher/inforce"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/loopback6"
	"sandboxctl.dev/launcher/names"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/packetlog"
)

// Keeper keeps the networks of the sandboxes of one state directory. It is for the holder
// of the lock, and safe for concurrent use.
type Keeper struct {
	store *actual.Store
	log   *slog.Logger
	table *firewall.Table
	// lookEvery is how often is looked at what nobody tells of.
	lookEvery time.Duration
	// packets writes what rules log; unlogged is why it can't, as was told.
	packets  *packetlog.Log
	unlogged string
	// answerer is who the sandboxes ask for names.
	answerer *dns.Server
	wakes    chan struct{}
	// rules has one round of rules at a time, which all starts share that wait for it.
	rules *rounds.Rounds
	// judged are the rules that connections were let through by, of the rounds alone; nil
	// until the first one.
	judged *judged
	// unsure says that nobody knows by which rules connections began before this program.
	unsure bool
	// losses are those of the table after which connections were ended, of the rounds alone.
	losses int
	// unknown are closed links, and since when they are; zero if that was told.
	unknown map[string]time.Time
	// inForce is for the round that runs.
	inForce *inforce.Networks

	forward sync.Mutex // of the host's settings
	files   sync.Mutex // of the hosts files

	// loopback forwards the ports of [::1]; it is Run's, and so is taken, the ports that it
	// could not have.
	loopback *loopback6.Forwarder
	taken    map[loopback6.Port]string
	// keeps says that subnets are to be given back when a link is gone; it is Run's.
	keeps bool

	mu sync.Mutex // of all below
	// promised are attachments that were chosen and may not be on record yet.
	promised map[string][]actual.Attachment
	// past are the addresses that judged has; nil if others may have connections too.
	past map[netip.Addr]bool
	// fresh are sandboxes that were given addresses which were unused, and are not attached yet.
	fresh map[string]bool
	// wanted are the networks of the manifests of now.
	wanted map[string]*networks.Network
	// connections is the most that the host policy allows a sandbox, 0 if nobody has said.
	connections int
	// documents are the Network documents of now. whole says that other networks have none,
	// redeclared that Want has not been called since they changed.
	documents  map[string]*networks.Declared
	whole      bool
	redeclared bool
	// scopes are what is on record of networks, and inScope is what is in force.
	scopes, inScope map[string]scope
	// installed is what the table has; nil if that is not known.
	installed *firewall.Ruleset
	// vacant is since when there is a table for nobody, zero if there is none. leaving says that
	// it is not to stay.
	vacant  time.Time
	leaving bool
	// said are the networks that the answerer knows names by.
	said map[string]*networks.Network
	// shown is what all hosts files say; nil if that is not known.
	shown []names.Sandbox
	// owners are the sandboxes that addresses in hosts files may be said to be of; nil if
	// that is not known.
	owners map[netip.Addr]string
	// added are those that rounds have seen since all hosts files were begun to be written.
	added map[netip.Addr]string
	// misnamed says of sandboxes why their hosts files can't be written.
	misnamed map[string]error
	// renewed is when all hosts files were written, and how long that took.
	renewed time.Time
	took    time.Duration
	// refused are the ports that were told of.
	refused map[string][]string
	// unrecorded says why what is in force is not all on record.
	unrecorded error
	// refused6 are those of [::1], and forwarded are the ports that this program has there.
	refused6  map[string][]string
	forwarded map[loopback6.Port]bool
	// runs are the sandboxes that rules are of.
	runs map[string]run
	// bandwidth is what links of runs are set to.
	bandwidth map[run]shaped
	// gone are the networks whose links were removed, as was told.
	gone  map[run][]string
	lacks map[string]Lack
	// dropping are chains of other programs that drop what is forwarded.
	dropping []string

	lacking chan struct{}
}

// New returns a keeper, which looks at the links and firewalls of the host at least each
// lookEvery. It touches nothing of the host yet, and removes what a killed program has left
// of the files of networks.
func New(store *actual.Store, lookEvery time.Duration, log *slog.Logger) (*Keeper, error) {
	table, err := firewall.Open(nil, Table(store.Marker()))
	if err != nil {
		return nil, err
	}
	k := &Keeper{
		store: store, log: log, lookEvery: lookEvery, table: table, wakes: make(chan struct{}, 1),
		inForce: inforce.New(store), scopes: map[string]scope{},
		promised: map[string][]actual.Attachment{}, fresh: map[string]bool{}, added: map[netip.Addr]string{}, bandwidth: map[run]shaped{}, lacking: make(chan struct{}, 1), loopback: loopback6.New(),
		packets:  packetlog.New(table.Name(), table.Counters, log),
		answerer: &dns.Server{Upstreams: &dns.Upstreams{}, Learned: table.Learn, Log: log},
	}
	k.rules = rounds.Of(func() error { return errors.Join(k.install(), k.correctNames()) })
	k.misnamed = map[string]error{}
	return k, errors.Join(k.sweep(), k.sweepNames())
}

// Table is the name of the table of nftables of a state directory: there may be several on
// a host.
func Table(state string) string {
	if state == "/var/lib/sandboxctl" {
		return "sandboxctl"
	}
	sum := sha256.Sum256([]byte(state))
	return "sandboxctl" + hex.EncodeToString(sum[:4])
}

// Begin begins to have the rules of a sandbox be in force whose attachments are on record, and
// returns what waits for them: they take as long to install as its processes to be made.
func (k *Keeper) Begin(rec *actual.Record) (rules func() error) {
	if len(rec.Attachments) == 0 {
		return func() error { return nil }
	}
	return operation.Beside(k.rules.Do)
}

// Attach connects a sandbox, whose attachments and processes are on record, with its
// networks, if it has any. Its rules, as Begin has returned them, are there before its links are.
func (k *Keeper) Attach(rec *actual.Record, rules func() error) error {
	if len(rec.Attachments) == 0 {
		return nil
	}
	ns, err := process.Through(*rec.Sentry, netns.Of)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := errors.Join(k.forwarding(rec), rules(), k.still(), k.misleads(rec.Name)); err != nil {
		return err
	}
	// No connection of the run before goes on: it would be one with another program.
	if err := k.endAll(rec); err != nil {
		return err
	}
	if rec.Attempt > 1 {
		if err := k.table.Reset(rec.Name); err != nil {
			return err
		}
	}
	for _, l := range Links(rec) {
		if err := links.Attach(ns, l); err != nil {
			return err
		}
	}
	if err := k.shapeNew(rec, ns); err != nil {
		return err
	}
	k.wake() // for the hosts files of the others
	return nil
}

// still has the rules be installed again if somebody has removed or changed them since Begin.
func (k *Keeper) still() error {
	if intact, err := k.table.Intact(); intact && err == nil {
		return nil
	}
	k.forget()
	return k.rules.Do()
}

// Want says what manifests say of networks now, by sandbox, and which sandboxes have
// attachments on record. Rules follow soon. Of one whose manifest can't be read the last
// word counts.
func (k *Keeper) Want(wanted map[string]*networks.Network, recorded map[string]bool) {
	k.mu.Lock()
	for name, n := range k.wanted {
		if wanted[name] == nil && recorded[name] {
			if wanted == nil {
				wanted = map[string]*networks.Network{}
			}
			wanted[name] = n
		}
	}
	k.wanted = wanted
	idle := !k.redeclared && len(recorded) == 0 && k.installed != nil && len(k.installed.Sandboxes) == 0 && len(k.installed.Closed) == 0
	k.redeclared = false
	k.mu.Unlock()
	if !idle {
		k.wake()
	}
}

// Bound says how many connections the host policy allows a sandbox.
func (k *Keeper) Bound(connections int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.connections = connections
}

// wake has Run look again.
func (k *Keeper) wake() {
	select {
	case k.wakes <- struct{}{}:
	default:
	}
}

// records are those that may have links, also by the second copy of one that can't be read,
// with the scopes of their networks that are in force.
func (k *Keeper) records() ([]*actual.Record, error) {
	list, err := k.store.List()
	if err != nil {
		return nil, fmt.Errorf("find sandboxes on networks: %w", err)
	}
	out := slices.DeleteFunc(list.Records, func(r *actual.Record) bool { return !attached(r) })
	for i := range list.Quarantined {
		if r, err := k.store.Copy(list.Quarantined[i].Name); err == nil && r != nil && attached(r) {
			out = append(out, r)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	applyScopes(out, k.inScope)
	return out, nil
}

// install has the firewall be as records and manifests say, if it is not already.
func (k *Keeper) install() error {
	records, err := k.records()
	if err != nil {
		return err
	}
	k.knowJudged(records)
	held := k.held()
	k.mu.Lock()
	wanted, most := k.wanted, k.connections // replaced, never changed
	k.mu.Unlock()
	// On record before it is in force, or the next daemon could bring back what was taken away.
	unscoped := k.setScopes(records)
	inForce, unrecorded := k.inForce.Of(records, wanted)
	rules, refused := ruleset(records, inForce, held)
	bound(rules, flows.Look(), most)
	if rules.Closed, err = k.closed(rules); err != nil {
		return err
	}
	rules.LogGroup = k.logGroup(rules)
	k.mu.Lock()
	k.unrecorded = errors.Join(unscoped, unrecorded)
	k.said = inForce
	k.runs = map[string]run{}
	for _, r := range records {
		k.runs[r.Name] = runOf(r)
	}
	maps.DeleteFunc(k.fresh, func(name string, _ bool) bool {
		_, recorded := k.runs[name]
		return !recorded && k.promised[name] == nil // its start has failed
	})
	k.answerer.SetDirectory(directory(records, inForce))
	same := k.installed != nil && reflect.DeepEqual(k.installed, rules) && (k.vacant.IsZero() || k.lingers() > 0)
	k.mu.Unlock()
	k.tell(refused)
	if same {
		k.end(rules)
		return nil
	}
	nobody := len(rules.Sandboxes) == 0 && len(rules.Closed) == 0
	if nobody && !k.everUsed() {
		k.settled()
		return nil // nothing of the host's is touched where nobody asks for a network
	}
	if err := k.foresee(rules); err != nil {
		return err
	}
	return k.force(rules, nobody)
}

// tell logs ports that can't be published, once.
func (k *Keeper) tell(refused map[string][]string) {
	k.mu.Lock()
	had := k.refused
	k.refused = refused
	k.mu.Unlock()
	for name, why := range refused {
		if !slices.Equal(why, had[name]) {
			k.log.Warn("port not published", "sandbox", name, "err", strings.Join(why, "; "))
		}
	}
	k.find()
}

const (
	// again is when rules are tried again that could not be installed.
	again = 2 * time.Second
	// patience is how long the rules of the run before are left as they are, until it is
	// known what manifests say now: they may have changed since the sandboxes were started.
	patience = 10 * time.Second
)

// Run keeps rules and links as they are to be, and answers for names, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var answers sync.WaitGroup
	defer answers.Wait()
	answers.Go(func() { k.answerer.Serve(ctx) })
	defer func() { _ = k.loopback.Close() }()
	defer k.packets.Close()
	defer k.leave()
	select {
	case <-ctx.Done():
		return nil
	case <-k.wakes:
	case <-time.After(patience):
	}
	var changed <-chan struct{}
	look := true
	pace := rounds.Pace{Every: k.lookEvery, Soon: again}
	for {
		used, err := k.round(look)
		if look {
			pace.Looked()
		}
		k.forwardLoopback(ctx)
		if look = false; used && changed == nil {
			var werr error
			if changed, werr = k.table.Watch(ctx); werr != nil {
				k.log.Warn("changes of the firewall are noticed late", "err", werr)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.wakes:
		case _, open := <-changed:
			if !open {
				changed = nil
			}
			k.forget()
		case <-k.later(&pace, used, err):
			if look = pace.Due(); !look {
				continue
			}
			if intact, err := k.table.Intact(); err != nil || !intact {
				k.forget()
			}
		}
	}
}

// later is when Run goes on after a round although nobody wakes it: nil, where an idle daemon
// does not wake.
func (k *Keeper) later(pace *rounds.Pace, used bool, err error) <-chan time.Time {
	if pending := k.closing() || k.keeps; err != nil || pending || used {
		return time.After(pace.Wait(err != nil, pending))
	}
	if left, vacant := k.left(); vacant { // also where it is over since the round began
		return time.After(max(left, 0))
	}
	return nil
}

// round has rules and links be as they are to be, and says whether any sandbox has some.
func (k *Keeper) round(look bool) (used bool, err error) {
	if err = k.rules.Do(); err == nil {
		k.mu.Lock()
		err = k.unrecorded
		k.mu.Unlock()
	}
	var gerr error
	if k.keeps, gerr = k.giveBack(); gerr != nil {
		k.log.Warn("subnets of networks that nobody uses are not free", "err", gerr)
	}
	if used = k.used(); !used {
		if err != nil && look {
			if k.hasTable() { // which may publish ports of who is gone
				k.log.Warn("rules of networks that nobody is on not removed, will retry", "err", err)
				return false, err
			}
			// A kernel without nftables, and nobody needs it.
			k.log.Debug("no rules of an earlier run were removed", "err", err)
			k.settled()
			return false, nil
		}
		return false, err
	}
	if err != nil {
		k.log.Warn("rules of networks not installed or not on record, will retry", "err", err)
	}
	if nerr := k.renewNames(look); nerr != nil {
		k.log.Warn("names of sandboxes not written, will retry", "err", nerr)
		err = errors.Join(err, nerr)
	}
	if look {
		k.restore()
		k.recount(true)
	}
	k.reshape(look)
	return true, err
}

// used says whether any sandbox is on a network.
func (k *Keeper) used() bool {
	records, err := k.records()
	return err != nil || len(records) > 0 || k.closing()
}

// everUsed says whether any sandbox of the state directory was ever on a network.
func (k *Keeper) everUsed() bool {
	dir, err := k.open()
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return dir.Close() == nil
}

// settled notes that the table has nothing.
func (k *Keeper) settled() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.installed, k.vacant = &firewall.Ruleset{}, time.Time{}
}

// forget has rules be installed again: somebody has changed the table.
func (k *Keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.installed = nil
}
