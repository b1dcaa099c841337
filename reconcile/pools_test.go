// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/ownnotes"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/expand"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/pulling"
	"sandboxctl.dev/reconcile/view"
)

const poolText = "apiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxPool\nmetadata: {name: p}\nspec:\n  max: 2\n  template: {root: ROOT, command: [COMMAND]}\n"

// poolWorld is what documents say of a pool and its claims, and what is on record.
type poolWorld struct {
	x    expand.Expander
	pool string // its text, "" if there is none
	want map[string]bool
	have []actual.Observed
}

func (w *poolWorld) input(t interface{ Fatal(...any) }) reconcile.Input {
	text := w.pool
	for _, name := range []string{"a", "b", "c", "d"} {
		if w.want[name] {
			text += "---\napiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxClaim\nmetadata: {name: " + name + "}\nspec: {pool: p}\n"
		}
	}
	in := reconcile.Input{Desired: &desired.Snapshot{Complete: true}, Actual: &actual.Snapshot{BootID: boot, Sandboxes: w.have}, Now: now, Policy: reconcile.DefaultPolicy()}
	if text != "" {
		docs, problems := desired.Decode("f.yaml", []byte(text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for i := range docs {
			if d := &docs[i]; d.Object != nil {
				in.Desired.Objects = append(in.Desired.Objects, desired.Object{Object: d.Object, Declared: d.Declared, Source: d.Position})
			} else {
				in.Desired.Entries = append(in.Desired.Entries, d.Entry())
			}
		}
	}
	in.Desired = w.x.Claims(in.Desired, in.Actual)
	in.LastGood = view.LastGood(in.Desired, in.Actual)
	return in
}

func (w *poolWorld) drop(name string) {
	w.have = slices.DeleteFunc(w.have, func(o actual.Observed) bool { return o.Record.Name == name })
}

// carryOut does what a plan says, at once.
func (w *poolWorld) carryOut(p reconcile.Plan) {
	for _, a := range p.Actions {
		switch a.Op {
		case reconcile.OpCreate:
			w.drop(a.Name)
			w.have = append(w.have, running(a.Entry))
		case reconcile.OpDestroy, reconcile.OpForget:
			i := slices.IndexFunc(w.have, func(o actual.Observed) bool { return o.Record.Name == a.Name })
			if o := w.have[i]; a.Ending.Replace { // its record stays for the next start
				rec := *o.Record
				rec.Phase, rec.Sentry, rec.Gofer, rec.Ending = actual.PhaseStopped, nil, nil, &a.Ending
				w.have[i] = actual.Observed{Record: &rec, Sentry: process.None, Gofer: process.None}
				continue
			}
			w.drop(a.Name)
		}
	}
	slices.SortFunc(w.have, func(a, b actual.Observed) int { return strings.Compare(a.Record.Name, b.Record.Name) })
}

// Whatever becomes of claims and their pool, no more of them have a sandbox than it allows, what
// has one keeps it as it is while its claim is there, and a place that is free is taken.
func TestPoolClaims(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := &poolWorld{want: map[string]bool{}}
		made := map[string]string{} // the hash of each that has a sandbox
		for step := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				w.pool = ""
			case 1:
				w.pool = strings.NewReplacer("ROOT", "{host: {}}", "COMMAND", fmt.Sprintf("c%d", step)).Replace(poolText)
			default:
				name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "name")
				w.want[name] = !w.want[name]
			}
			for range 4 {
				in := w.input(rt)
				plan := reconcile.Compute(in)
				statuses := reconcile.Statuses(in, plan)
				w.carryOut(plan)
				for i := range statuses {
					if s := &statuses[i]; s.Phase != reconcile.PhaseRunning && s.Phase != reconcile.PhaseRemoving && s.Phase != reconcile.PhasePending {
						rt.Fatalf("%s is %s", s.Name, s.Phase)
					}
				}
			}
			if len(w.have) > 2 {
				rt.Fatalf("%d claims have a sandbox", len(w.have))
			}
			claims := 0
			for name, wanted := range w.want {
				if wanted {
					claims++
				}
				i := slices.IndexFunc(w.have, func(o actual.Observed) bool { return o.Record.Name == name })
				switch {
				case i < 0:
					delete(made, name)
				case !wanted:
					rt.Fatalf("%s is still there", name)
				case made[name] != "" && made[name] != w.have[i].Record.SpecHash:
					rt.Fatalf("%s is another one", name)
				default:
					made[name] = w.have[i].Record.SpecHash
				}
			}
			if w.pool != "" && len(w.have) != min(claims, 2) {
				rt.Fatalf("%d of %d claims have a sandbox", len(w.have), claims)
			}
		}
	})
}

// Claims that are given another pool, and sandboxes of their own that become claims, never have more
// than its max in a pool.
func TestPoolMoves(t *testing.T) {
	t.Parallel()
	const text = "apiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxPool\nmetadata: {name: NAME}\nspec:\n  max: 1\n  size: 1\n  template: {root: {host: {}}, command: [x]}\n"
	const sandbox = "---\napiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: NAME}\nspec: {root: {host: {}}, command: [x], restartPolicy: Never, minReadySeconds: 0, ttlAfterFinished: 0s}\n"
	const claim = "---\napiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxClaim\nmetadata: {name: NAME}\nspec: {pool: POOL}\n"
	rapid.Check(t, func(rt *rapid.T) {
		w := &poolWorld{}
		of := map[string]string{} // the pool that each is to be of, "own" for none
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			of[rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name")] = rapid.SampledFrom([]string{"", "own", "p", "q"}).Draw(rt, "pool")
			w.pool = strings.Replace(text, "NAME", "p", 1) + "---\n" + strings.Replace(text, "NAME", "q", 1)
			for _, name := range []string{"a", "b", "c"} {
				switch pool := of[name]; pool {
				case "":
				case "own":
					w.pool += strings.Replace(sandbox, "NAME", name, 1)
				default:
					w.pool += strings.NewReplacer("NAME", name, "POOL", pool).Replace(claim)
				}
			}
			for range 4 {
				w.carryOut(reconcile.Compute(w.input(rt)))
				live := map[string]int{}
				for i := range w.have {
					if w.have[i].Record.Phase != actual.PhaseRunning {
						continue
					}
					e, err := desired.FromCanonical(w.have[i].Record.Spec, "")
					if err != nil {
						rt.Fatal(err)
					}
					live[e.Sandbox.Metadata.Annotations[ownnotes.Pool]]++
				}
				if live["p"] > 1 || live["q"] > 1 {
					rt.Fatalf("%v have a sandbox: %v", live, of)
				}
			}
			for i := range w.have {
				if name := w.have[i].Record.Name; of[name] == "" {
					rt.Fatalf("%s is still there", name)
				}
			}
			for name, pool := range of {
				there := slices.ContainsFunc(w.have, func(o actual.Observed) bool { return o.Record.Name == name })
				if pool == "own" && !there {
					rt.Fatalf("%s has no sandbox", name)
				}
			}
		}
	})
}

// A claim that can't start for another reason takes no place: those behind it get that.
func TestPoolStarved(t *testing.T) {
	t.Parallel()
	w := &poolWorld{want: map[string]bool{"c": true}, pool: strings.NewReplacer("ROOT", "{host: {}}", "COMMAND", "x", "max: 2", "max: 1").Replace(poolText)}
	for _, spec := range []string{"env: [{name: A, valueFrom: {config: {name: nosuch, key: k}}}]", "env: [{name: B, valueFrom: {config: {name: other, key: k}}}]"} {
		w.pool += "---\napiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxClaim\nmetadata: {name: " + string(rune('a'+strings.Count(w.pool, "SandboxClaim"))) + "}\nspec: {pool: p, " + spec + "}\n"
	}
	in := w.input(t)
	in.Files = needs.AddObjects(nil, in.Desired, nil, nil)
	p := reconcile.Compute(in)
	if len(p.Actions) != 1 || p.Actions[0].Name != "c" || len(p.Delayed) != 2 || p.Delayed[0].Reason != actual.ReasonInputMissing || p.Delayed[1].Reason != actual.ReasonInputMissing {
		t.Errorf("%+v %+v", p.Actions, p.Delayed)
	}
}

// A claim that waits says for what, and a claim that runs says what keeps it from the next start.
func TestPoolStatuses(t *testing.T) {
	t.Parallel()
	w := &poolWorld{want: map[string]bool{"a": true, "b": true, "c": true}, pool: strings.NewReplacer("ROOT", "{host: {}}", "COMMAND", "x").Replace(poolText)}
	w.carryOut(reconcile.Compute(w.input(t)))
	in := w.input(t)
	plan := reconcile.Compute(in)
	if s := reconcile.Statuses(in, plan)[2]; s.Name != "c" || s.Phase != reconcile.PhasePending || s.Condition(reconcile.CondReady).Reason != actual.ReasonPoolFull || !strings.Contains(s.Condition(reconcile.CondReady).Message, `SandboxPool "p" allows 2 claims`) {
		t.Errorf("%+v", s)
	}
	w.pool, w.have = "", w.have[:1]
	in = w.input(t)
	statuses := reconcile.Statuses(in, reconcile.Compute(in))
	if s := statuses[0]; s.Phase != reconcile.PhaseRunning || len(s.Warnings) > 0 {
		t.Errorf("%+v", s)
	}
	if s := statuses[1]; s.Condition(reconcile.CondReady).Reason != actual.ReasonInputMissing {
		t.Errorf("%+v", s)
	}
}

// What the policy does not allow any more is not started by the recovery from a crash.
func TestPoolResume(t *testing.T) {
	t.Parallel()
	w := &poolWorld{want: map[string]bool{"a": true}, pool: strings.NewReplacer("ROOT", "{host: {}}", "COMMAND", "x").Replace(poolText)}
	w.carryOut(reconcile.Compute(w.input(t)))
	w.have[0].Record.Phase = actual.PhaseStarting
	for why, start := range map[string]bool{"": true, "no": false} {
		in := w.input(t)
		in.Desired.Entries[0].Claim.Reason, in.Desired.Entries[0].Claim.Why = desired.ReasonPolicyDenied, why
		if p := reconcile.Compute(in); len(p.Actions) != 1 || p.Actions[0].Op != reconcile.OpResume || p.Actions[0].Start != start {
			t.Errorf("%q: %+v", why, p.Actions)
		}
	}
}

// A pool has its image fetched, and pins it: claims get that one, also when its tag has moved.
func TestPoolImage(t *testing.T) {
	t.Parallel()
	w := &poolWorld{want: map[string]bool{"a": true}, pool: strings.NewReplacer("ROOT", "{image: {ref: 'example.org/x:1'}}", "COMMAND", "x").Replace(poolText)}
	compute := func(images map[string]string, pulled map[string]pulling.Done) reconcile.Plan {
		in := w.input(t)
		in.Images, in.Pulled = images, pulled
		return reconcile.Compute(in)
	}
	w.want["a"] = false
	p := compute(nil, nil)
	if len(p.Pulls) != 1 || p.Pulls[0].Ref != "example.org/x:1" || len(p.PoolsWait) != 1 || p.PoolsWait[0].Name != "pool/p" || len(p.Delayed) != 0 || len(p.Pins) != 0 {
		t.Fatalf("%+v", p)
	}
	p = compute(map[string]string{"example.org/x:1": "sha256:1", "sha256:1": "sha256:1"}, nil)
	if len(p.Pulls)+len(p.PoolsWait) != 0 || len(p.Pins) != 1 || p.Pins[0].Digest != "sha256:1" {
		t.Fatalf("%+v", p)
	}
	w.want["a"] = true
	moved := map[string]string{"example.org/x:1": "sha256:2", "sha256:1": "sha256:1", "sha256:2": "sha256:2"}
	pinned := map[string]pulling.Done{"pool/p": p.Pins[0]}
	p = compute(moved, pinned)
	if len(p.Actions) != 1 || p.Actions[0].Image != "sha256:1" || p.Pins[0].Digest != "sha256:1" {
		t.Errorf("%+v", p)
	}
	// Another command keeps the pin, and with Recreate looks again, as does another reference.
	w.pool = strings.Replace(w.pool, "[x]", "[z]", 1)
	if p = compute(moved, pinned); p.Actions[0].Image != "sha256:1" {
		t.Errorf("%+v", p)
	}
	w.pool = strings.Replace(w.pool, "  max: 2\n", "  max: 2\n  updateStrategy: Recreate\n", 1)
	if p = compute(moved, pinned); p.Actions[0].Image != "sha256:2" || p.Pins[0].Digest != "sha256:2" {
		t.Errorf("%+v", p)
	}
	// It was removed from the store.
	if p = compute(map[string]string{}, pinned); len(p.Actions) != 0 || len(p.Pulls) != 1 {
		t.Errorf("%+v", p)
	}
}
