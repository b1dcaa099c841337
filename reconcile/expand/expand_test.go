// SPDX-License-Identifier: Apache-2.0

package expand

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/ownnotes"
)

const head = "apiVersion: sandboxctl.dev/v1alpha1\n"

// snapshot is what documents say.
func snapshot(t *testing.T, texts ...string) *desired.Snapshot {
	t.Helper()
	s := &desired.Snapshot{Complete: true}
	docs, problems := desired.Decode("f.yaml", []byte(head+strings.Join(texts, "---\n"+head)))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i := range docs {
		if d := &docs[i]; d.Object != nil {
			s.Objects = append(s.Objects, desired.Object{Object: d.Object, Declared: d.Declared, Source: d.Position})
		} else {
			s.Entries = append(s.Entries, d.Entry())
		}
	}
	return s
}

const (
	pool  = "kind: SandboxPool\nmetadata: {name: p}\nspec:\n  max: 3\n  template:\n    root: {host: {}}\n    command: [server, a]\n    args: [b]\n    env: [{name: A, value: a}, {name: B, value: b}]\n    volumes: [{name: tmp, mountPath: /tmp, tmpfs: {}}]\n    activeDeadline: 1h\n"
	claim = "kind: SandboxClaim\nmetadata: {name: job, labels: {app: x}}\nspec:\n  pool: p\n  args: [c]\n  env: [{name: B, value: c}]\n  volumes: [{name: data, mountPath: /data, tmpfs: {}}]\n  ttl: 1m\n"
)

// recordOf is the record of an entry that was started.
func recordOf(t *testing.T, e *desired.Entry) *actual.Snapshot {
	t.Helper()
	spec, err := desired.Canonical(e.Sandbox)
	if err != nil {
		t.Fatal(err)
	}
	rec := &actual.Record{Name: e.Sandbox.Metadata.Name, Spec: spec, SpecHash: e.Hash, Containers: []actual.Container{{Name: actual.AppName}}}
	return &actual.Snapshot{Sandboxes: []actual.Observed{{Record: rec}}}
}

func only(t *testing.T, s *desired.Snapshot) *desired.Entry {
	t.Helper()
	if len(s.Entries) != 1 {
		t.Fatalf("%+v", s.Entries)
	}
	return &s.Entries[0]
}

// A claim is the template with what the claim adds; the claim counts before it.
func TestClaim(t *testing.T) {
	t.Parallel()
	want := snapshot(t, pool, claim)
	x := new(Expander)
	got := x.Claims(want, &actual.Snapshot{})
	e := only(t, got)
	s := &e.Sandbox.Spec
	var env []string
	for _, v := range s.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	if !slices.Equal(s.Command, []string{"server", "a"}) || !slices.Equal(s.Args, []string{"c"}) || !slices.Equal(env, []string{"A=a", "B=c"}) || len(s.Volumes) != 2 || s.Hostname != "job" ||
		time.Duration(*s.ActiveDeadline) != time.Minute || s.RestartPolicy != desired.RestartNever || e.Claim.Max != 3 || e.Claim.Why != "" {
		t.Errorf("%+v", e)
	}
	m := e.Sandbox.Metadata
	if m.Name != "job" || m.Labels["app"] != "x" || m.Annotations[ownnotes.Pool] != "p" || m.Annotations[ownnotes.Claim] == "" {
		t.Errorf("%+v", m)
	}
	if errs := desired.Validate(e.Sandbox); len(errs) > 0 || e.Hash != desired.Hash(e.Sandbox) {
		t.Errorf("%v", errs)
	}
	if again := only(t, x.Claims(want, &actual.Snapshot{})); !reflect.DeepEqual(e, again) {
		t.Errorf("it is another one the second time: %+v", again)
	}
	// What was given is as it was.
	if raw := only(t, want); raw.Claim.Max != 0 || raw.Sandbox.Metadata.Annotations != nil {
		t.Errorf("%+v", raw)
	}
	plain := &desired.Snapshot{}
	if x.Claims(plain, &actual.Snapshot{}) != plain {
		t.Error("a snapshot without claims is another one")
	}
}

// A claim that has a sandbox keeps what that is made of, whatever becomes of its pool. Its time and
// its suspension follow the claim. Another claim of the name gets another sandbox.
func TestBound(t *testing.T) {
	t.Parallel()
	x := new(Expander)
	first := only(t, x.Claims(snapshot(t, pool, claim), &actual.Snapshot{}))
	have := recordOf(t, first)
	other := strings.Replace(pool, "server", "other", 1)
	for name, texts := range map[string][]string{"the same": {pool, claim}, "another template": {other, claim}, "no pool": {claim}} {
		e := only(t, x.Claims(snapshot(t, texts...), have))
		if e.Hash != first.Hash || e.Sandbox.Spec.Command[0] != "server" || e.Claim.Why != "" || time.Duration(*e.Sandbox.Spec.ActiveDeadline) != time.Minute {
			t.Errorf("%s: %+v", name, e)
		}
	}
	e := only(t, x.Claims(snapshot(t, other, strings.Replace(claim, "ttl: 1m", "ttl: 2m\n  suspend: true", 1)), have))
	if e.Hash != first.Hash || time.Duration(*e.Sandbox.Spec.ActiveDeadline) != 2*time.Minute || !e.Sandbox.Spec.Suspend {
		t.Errorf("%+v", e)
	}
	e = only(t, x.Claims(snapshot(t, other, strings.Replace(claim, "  ttl: 1m\n", "", 1)), have))
	if e.Hash != first.Hash || time.Duration(*e.Sandbox.Spec.ActiveDeadline) != time.Hour {
		t.Errorf("%+v", e)
	}
	e = only(t, x.Claims(snapshot(t, other, strings.Replace(claim, "[c]", "[d]", 1)), have))
	if e.Hash == first.Hash || e.Sandbox.Spec.Command[0] != "other" || e.Claim.Why != "" {
		t.Errorf("%+v", e)
	}
	if e.Claim.From != "p" {
		t.Errorf("its sandbox is of %q", e.Claim.From)
	}
	// A record of a sandbox of that name that no claim has made.
	plain := recordOf(t, &desired.Entry{Sandbox: &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "job"}, Spec: first.Sandbox.Spec}})
	if e := only(t, x.Claims(snapshot(t, other, claim), plain)); e.Sandbox.Spec.Command[0] != "other" || e.Claim.From != "" {
		t.Errorf("%+v", e)
	}
	plain.Sandboxes[0].Record.Spec = nil
	if e := only(t, new(Expander).Claims(snapshot(t, other, claim), plain)); e.Claim.From != "p" {
		t.Errorf("%+v", e.Claim)
	}
	// What can't be made of it leaves what runs as it is.
	e = only(t, x.Claims(snapshot(t, strings.Replace(claim, "pool: p", "pool: q", 1)), have))
	if e.Claim.From != "p" || e.Hash != first.Hash || e.Claim.Reason != actual.ReasonInputMissing {
		t.Errorf("%+v", e)
	}
}

// The deadline of the template is the one at the binding, also when the claim had its own meanwhile.
func TestBoundDeadline(t *testing.T) {
	t.Parallel()
	x := new(Expander)
	short := strings.Replace(pool, "activeDeadline: 1h", "activeDeadline: 1s", 1)
	none := strings.Replace(pool, "    activeDeadline: 1h\n", "", 1)
	without := strings.Replace(claim, "  ttl: 1m\n", "", 1)
	for name, c := range map[string]struct {
		first, claim string
		want         time.Duration
	}{"its own": {pool, claim, time.Hour}, "that of the template": {pool, without, time.Hour}, "neither": {none, without, 0}, "its own alone": {none, claim, 0}} {
		have := recordOf(t, only(t, x.Claims(snapshot(t, c.first, c.claim), &actual.Snapshot{})))
		have = recordOf(t, only(t, x.Claims(snapshot(t, short, claim), have))) // it was started again
		for _, now := range [][]string{{short, without}, {none, without}, {without}} {
			var got time.Duration
			if d := only(t, x.Claims(snapshot(t, now...), have)).Sandbox.Spec.ActiveDeadline; d != nil {
				got = time.Duration(*d)
			}
			if got != c.want {
				t.Errorf("%s: %s, expected %s", name, got, c.want)
			}
		}
	}
	// One that does not fit leaves that of what lives.
	have := recordOf(t, only(t, x.Claims(snapshot(t, pool, without), &actual.Snapshot{})))
	e := only(t, x.Claims(snapshot(t, short, strings.Replace(without, "/data", "/tmp", 1)), have))
	if e.Claim.Why == "" || time.Duration(*e.Sandbox.Spec.ActiveDeadline) != time.Hour {
		t.Errorf("%+v", e)
	}
}

// A claim that changes is another one, also where what it makes is equal: the record is of the claim
// of now, or it would not keep what lives from the next template. What takes effect beside what runs
// changes neither.
func TestChangedClaim(t *testing.T) {
	t.Parallel()
	x := new(Expander)
	named := strings.Replace(claim, "{name: data, mountPath: /data, tmpfs: {}}", "{mountPath: /data, volume: {name: data, size: 1Mi}}", 1)
	first := only(t, x.Claims(snapshot(t, pool, named), &actual.Snapshot{}))
	have := recordOf(t, first)
	grown := strings.Replace(named, "size: 1Mi}", "size: 2Mi}, shared: true", 1)
	e := only(t, x.Claims(snapshot(t, strings.Replace(pool, "server", "other", 1), grown), have))
	if v := e.Sandbox.Spec.Volumes; e.Hash != first.Hash || len(v) != 2 || v[1].Volume.Size != 2<<20 || !v[1].Shared || v[0].Tmpfs == nil {
		t.Errorf("%+v", e)
	}
	for name, texts := range map[string][]string{
		"the environment of the template":     {pool, strings.Replace(named, "{name: B, value: c}", "{name: B, value: c}, {name: A, value: a}", 1)},
		"the command of the template":         {pool, strings.Replace(named, "args: [c]", "command: [server, a]\n  args: [c]", 1)},
		"another pool with the same template": {strings.Replace(pool, "name: p", "name: q", 1), strings.Replace(named, "pool: p", "pool: q", 1)},
	} {
		e := only(t, x.Claims(snapshot(t, texts...), have))
		if e.Hash == first.Hash || e.Claim.From != "p" {
			t.Errorf("%s: %+v", name, e)
		}
		// Once it is made again it is bound.
		again := only(t, x.Claims(snapshot(t, strings.Replace(texts[0], "server", "other", 1), texts[1]), recordOf(t, e)))
		if again.Hash != e.Hash || again.Sandbox.Spec.Command[0] != "server" {
			t.Errorf("%s: %+v", name, again)
		}
	}
}

// policy denies what runs a command.
type policy struct {
	desired.Policy
	command string
}

func (p policy) Check(s *desired.Sandbox) []desired.FieldError {
	if len(s.Spec.Command) > 0 && s.Spec.Command[0] == p.command {
		return []desired.FieldError{{Field: "spec.command", Message: "no"}}
	}
	return nil
}

// What keeps a claim from a sandbox is told, and nothing is started of it.
func TestWaits(t *testing.T) {
	t.Parallel()
	invalid := snapshot(t, claim)
	invalid.Problems = []desired.Problem{{Position: desired.Position{File: "p.yaml", Line: 1, Column: 2}, Name: "pool/p", Message: "it is broken"}}
	denied := snapshot(t, pool, claim)
	denied.Policy = policy{command: "server"}
	for name, c := range map[string]struct {
		want        *desired.Snapshot
		reason, why string
	}{
		"no pool":       {snapshot(t, claim), actual.ReasonInputMissing, `spec.pool: SandboxPool "p" does not exist`},
		"a broken pool": {invalid, actual.ReasonInputMissing, "p.yaml:1:2: it is broken"},
		"the same path": {snapshot(t, pool, strings.Replace(claim, "/data", "/tmp", 1)), actual.ReasonManifestInvalid, `with the template of SandboxPool "p": spec.volumes[1].mountPath`},
		"the same name": {snapshot(t, pool, strings.Replace(claim, "name: data", "name: tmp", 1)), actual.ReasonManifestInvalid, "spec.volumes[1].name"},
		"not allowed":   {denied, desired.ReasonPolicyDenied, "spec.command: no"},
	} {
		e := only(t, new(Expander).Claims(c.want, &actual.Snapshot{}))
		if e.Claim.Reason != c.reason || !strings.Contains(e.Claim.Why, c.why) || e.Sandbox.Metadata.Name != "job" {
			t.Errorf("%s: %s: %s", name, e.Claim.Reason, e.Claim.Why)
		}
		if e.Sandbox.Spec.TerminationGracePeriod == nil || e.Sandbox.Spec.MinReadySeconds == nil {
			t.Errorf("%s: it has no defaults", name)
		}
		if e.Sandbox.Spec.Root.Image != nil {
			t.Errorf("%s: it has an image that nobody has named", name)
		}
	}
}
