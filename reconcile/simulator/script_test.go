// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
)

// kind is what happens to the host.
type kind int

const (
	applies kind = iota
	removes
	edits      // in place: the file is cut short, written by halves
	appExits   // with 0 or 1
	kills      // the sentry or the gofer
	hangs      // it does nothing, and for a while does not even die of SIGKILL
	crashes    // the daemon at one of its next calls
	stops      // the daemon, in good order
	powerCuts  // at one of the next calls
	reboots    //
	fills      // the disk, for some steps
	fails      // the next calls of a class
	restarts   // is asked
	approves   //
	damages    // a record
	mends      // it
	unmounts   // the manifests: missing, or another directory
	remounts   //
	strangers  // come
	strangersQ // go
	dooms      // the next sentry
	clocks     // of sentries are wrong; records were written under another
	cliCrashes // the command under way
	moves      // a tag, to another image
	prunes     // the store of images
	changes    // the file that manifests refer to
	waits      // time passes
	kindCount
)

var kindNames = [...]string{
	"apply", "remove", "edit", "app exits", "kill", "hang", "crash", "stop daemon", "power cut", "reboot", "disk full", "fail calls", "restart", "approve",
	"damage record", "mend record", "unmount manifests", "mount manifests", "strangers come", "strangers go", "doom next sentry", "clock",
	"crash command", "move tag", "prune images", "change file", "wait",
}

// event is one thing that happens, some steps after the one before.
type event struct {
	After int
	Kind  kind
	Name  int
	Arg   uint32
}

func (e event) String() string {
	return fmt.Sprintf("+%d %s %s %d", e.After, kindNames[e.Kind], manifestNames[e.Name], e.Arg)
}

var manifestNames = []string{"s0", "s1", "s2", "s3"}

// weights are how often each kind happens.
var weights = [kindCount]int{
	applies: 16, removes: 7, edits: 6, appExits: 9, kills: 9, hangs: 4, crashes: 14, stops: 2, powerCuts: 4, reboots: 1, fills: 2, fails: 9, restarts: 4,
	approves: 3, damages: 2, mends: 3, unmounts: 2, remounts: 3, strangers: 5, strangersQ: 4, dooms: 2, clocks: 1, cliCrashes: 3, moves: 3, prunes: 2, changes: 6, waits: 8,
}

// script makes the events of a run. They are the same for the same seed, and
// each means something whatever has happened before: any part of a script is
// one.
func script(seed uint64, n int) []event {
	rng := rand.New(rand.NewPCG(seed, 0xe7e47))
	total := 0
	for _, w := range weights {
		total += w
	}
	out := make([]event, 0, n)
	for len(out) < n {
		r := rng.IntN(total)
		k := kind(0)
		for r >= weights[k] {
			r -= weights[k]
			k++
		}
		e := event{After: rng.IntN(30), Kind: k, Name: rng.IntN(len(manifestNames)), Arg: rng.Uint32()}
		if len(out) == 0 || len(out) < 6 && rng.IntN(2) == 0 {
			e.Kind = applies
		}
		out = append(out, e)
		if k == crashes || k == powerCuts {
			// The next one in the midst of the recovery.
			for rng.IntN(3) == 0 {
				out = append(out, event{After: rng.IntN(25), Kind: crashes, Arg: rng.Uint32()})
			}
		}
	}
	return out
}

// activeDeadline is that of manifests that have one.
const activeDeadline = 20 * time.Second

// manifest is a text for a name. Eight of them, one of which can't be parsed; the root of
// some is an image.
func manifest(name string, variant uint32) string {
	var b strings.Builder
	root := "{host: {}}"
	if variant>>8%4 == 3 {
		root = imageRoot(variant)
	}
	fmt.Fprintf(&b, "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: %s\n", name, root)
	command, rest := "a", ""
	switch variant % 8 {
	case 1:
		command = "b"
	case 2:
		rest = "  restartPolicy: Never\n"
	case 3:
		rest = "  restartPolicy: OnFailure\n"
	case 4:
		rest = "  suspend: true\n"
	case 5:
		rest = "  terminationGracePeriod: 0s\n"
	case 6:
		command, rest = "c", "  restartPolicy: Never\n  terminationGracePeriod: 30s\n"
	case 7:
		return b.String() + "  comand: [/bin/a]\n"
	}
	limit := ""
	if variant%8 == 3 {
		limit = ", limit: 3"
	}
	if variant>>10%2 == 1 {
		rest += inputVolume
	}
	if variant>>11%8 == 1 {
		rest += fmt.Sprintf("  activeDeadline: %s\n", activeDeadline)
	}
	if variant>>14%2 == 1 {
		rest += "  ttlAfterFinished: 5s\n"
	}
	fmt.Fprintf(&b, "  command: [/bin/%s]\n  backoff: {initial: 1s, max: 4s, resetAfter: 10s%s}\n%s", command, limit, rest)
	return b.String()
}

// fire makes an event happen.
func (h *host) fire(e event) {
	h.stats.Events++
	h.note("-- %s", e)
	name := manifestNames[e.Name]
	switch e.Kind {
	case applies:
		h.apply(name, manifest(name, e.Arg))
	case removes:
		h.remove(name)
	case edits:
		h.edit(name, e.Arg)
	case appExits:
		if p := h.find(name, "sentry"); p != nil && p.started && p.ended == nil {
			h.check.genuine[name]++
			p.ended = new(int(e.Arg&1) << 8) // a wait status
		}
	case kills:
		if p := h.find(name, []string{"sentry", "gofer"}[e.Arg&1]); p != nil {
			h.check.genuine[name]++
			p.killed = true
		}
	case hangs:
		if p := h.find(name, []string{"sentry", "gofer"}[e.Arg&1]); p != nil {
			p.hung, p.stuck = true, time.Time{}
			if e.Arg&6 == 0 {
				p.stuck = time.Now().Add(time.Duration(e.Arg>>3%50) * time.Second)
			}
		}
	case crashes, powerCuts:
		h.cut, h.cutIn, h.cutPower = cut(1+e.Arg%3), int(e.Arg/3%24), e.Kind == powerCuts
	case stops:
		if h.daemon != nil && h.between() {
			h.stats.Stops++
			h.daemon.cancel()
		}
	case reboots:
		h.reboot()
	case fills:
		h.disk.full, h.disk.told, h.fullFor = true, e.Arg&64 != 0, int(e.Arg%60)
	case fails:
		h.failing[class(1+e.Arg%6)] = 1 + int(e.Arg/6%6)
	case restarts:
		h.restart(name)
	case approves:
		h.approve()
	case damages:
		h.damage(name, e.Arg)
	case mends:
		h.mend(name)
	case unmounts:
		h.mounted = nil
		if e.Arg&1 == 0 {
			h.mounted = h.disk.make(true)
		}
		h.notify()
	case remounts:
		h.mounted = h.manifests
		h.notify()
	case strangers:
		for range 1 + e.Arg%2 {
			if len(h.procs) < pids-4 {
				_ = h.spawn(&proc{role: "stranger"})
			}
		}
	case strangersQ:
		h.endStrangers()
	case dooms:
		h.check.doomNext++
	case clocks:
		h.skew = time.Duration(int32(e.Arg)) * time.Second
		if e.Arg&3 == 0 {
			h.otherClock(h.skew)
		}
	case cliCrashes:
		for _, p := range h.clis {
			h.crash(p)
		}
	case moves:
		h.images.move(fmt.Sprintf("registry.example/%c:1", 'a'+rune(e.Arg%2)))
	case prunes:
		h.prune()
	case changes:
		h.content = (h.content + 1 + int(e.Arg%(contents-1))) % contents
		h.notify()
	case waits, kindCount:
		h.sleep(time.Duration(1+e.Arg%8000) * time.Millisecond)
	}
}

// firstBoot makes a script of how things can go wrong the first time.
func firstBoot(seed uint64) []event {
	rng := rand.New(rand.NewPCG(seed, 0xf1257))
	return []event{
		{Kind: fails, Arg: uint32(syncs-1) + 6*uint32(rng.IntN(6)), After: rng.IntN(8)},
		{Kind: applies},
		{Kind: waits, Arg: 200, After: rng.IntN(20)},
		{Kind: powerCuts, After: rng.IntN(60), Arg: rng.Uint32()},
		{Kind: waits, Arg: 200, After: 30},
	}
}

// asks makes a script of requests to restart, and of what can befall them.
func asks(seed uint64) []event {
	rng := rand.New(rand.NewPCG(seed, 0xa5c5))
	out := []event{{Kind: applies}, {Kind: waits, After: 60, Arg: 300}}
	for range 20 {
		k := restarts
		if rng.IntN(4) == 0 {
			k = []kind{crashes, powerCuts, fails}[rng.IntN(3)]
		}
		out = append(out, event{Kind: k, After: rng.IntN(70), Arg: rng.Uint32()})
	}
	return out
}

// asksOnce makes a script of one request to restart: the daemon is killed while
// it carries that out, and the power goes while the next one finds out.
func asksOnce(seed uint64) []event {
	rng := rand.New(rand.NewPCG(seed, 0xa5c1))
	return []event{
		{Kind: applies, Arg: 5},
		{Kind: waits, After: 60, Arg: 300},
		{Kind: restarts},
		{Kind: crashes, After: 20 + rng.IntN(80), Arg: rng.Uint32()},
		{Kind: powerCuts, After: 10 + rng.IntN(60), Arg: rng.Uint32() % 24},
		{Kind: waits, After: 20, Arg: 300},
	}
}

func (h *host) endStrangers() {
	for n := 2; n < 2+pids; n++ {
		if p := h.procs[n]; p != nil && p.role == "stranger" {
			p.dead = true
			h.reap(p)
		}
	}
}

// edit writes a manifest as an editor may: not at once, and not for good.
func (h *host) edit(name string, arg uint32) {
	dir, file := h.mounted, name+".yaml"
	if dir != h.manifests || h.check.busy[name] {
		return
	}
	delete(h.check.acks, name)
	text := manifest(name, arg>>4)
	switch arg % 4 {
	case 0: // vim: away, and back in a moment
		if err := h.disk.unlink(dir, file); err != nil {
			return
		}
		h.notify()
		h.later = append(h.later, func() { h.edit(name, arg&^3|2) })
		return
	case 1: // half of it first
		if f, err := h.disk.create(dir, file, false, true); err == nil {
			_ = h.disk.write(f, []byte(text), true)
			h.later = append(h.later, func() { h.edit(name, arg&^3|2) })
		}
	default:
		if f, err := h.disk.create(dir, file, false, true); err == nil {
			_ = h.disk.write(f, []byte(text), false)
		}
	}
	h.notify()
}

// damage changes a record behind the daemon's back.
func (h *host) damage(name string, arg uint32) {
	d := h.sandboxes()[name]
	if d == nil || d.names["meta.json"] == nil || h.backups[name] != nil {
		return
	}
	f := d.names["meta.json"]
	rec, err := f.record()
	// Nobody writes to it any more, so nobody may be writing now.
	if err != nil || h.working(name) {
		return
	}
	h.stats.Quarantined++
	b := bytes.Clone(f.data)
	h.backups[name] = &backup{file: f, data: f.data, rec: rec}
	delete(h.check.puts, name)
	switch arg % 4 {
	case 0:
		b[int(arg>>2)%len(b)] ^= 1 << (arg % 8)
	case 1:
		b = b[:int(arg>>2)%len(b)]
	case 2:
		b = nil
	default:
		b = bytes.Replace(b, fmt.Appendf(nil, `"version":%d`, actual.RecordVersion), []byte(`"version":9`), 1)
	}
	f.overwrite(b)
}

// working says whether the daemon has an operation on a name.
func (h *host) working(name string) bool {
	return slices.ContainsFunc(h.parked, func(t *task) bool { return !t.p.dead && (t.loop || strings.HasSuffix(t.name, " "+name)) })
}

// mend puts back the record that was there.
func (h *host) mend(name string) {
	b := h.backups[name]
	if b == nil || h.working(name) {
		return
	}
	if d := h.sandboxes()[name]; d != nil && d.names["meta.json"] == b.file {
		b.file.overwrite(b.data)
	} else {
		h.breach("I8: the record of %s could not be read, and was removed or replaced", name)
	}
	delete(h.backups, name)
	h.notify()
}

// otherClock has every record say times of another clock.
func (h *host) otherClock(d time.Duration) {
	for _, name := range manifestNames {
		rec := h.onRecord(name)
		if rec == nil || h.backups[name] != nil || h.working(name) {
			continue
		}
		r := rec.Clone()
		r.CreatedAt = r.CreatedAt.Add(d)
		if !r.App().StartedAt.IsZero() { // or it would seem to have been started
			r.App().StartedAt = r.App().StartedAt.Add(d)
		}
		if x := r.App().LastExit; x != nil {
			y := *x
			y.At = y.At.Add(d)
			r.App().LastExit = &y
		}
		if b, err := actual.EncodeRecord(r); err == nil {
			h.sandboxes()[name].names["meta.json"].overwrite(b)
		}
	}
}
