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
	if m.Name != "job" || m.Labels["app"] != "x" || m.Annotations[desired.PoolAnnotation] != "p" || m.Annotations[desired.ClaimAnnotation] == "" {
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
	// A record of a sandbox of that name that no claim has made.
	plain := recordOf(t, &desired.Entry{Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: "job"}, Spec: first.Sandbox.Spec}})
	if e := only(t, x.Claims(snapshot(t, other, claim), plain)); e.Sandbox.Spec.Command[0] != "other" {
		t.Errorf("%+v", e)
	}
	// What can't be made of it leaves what runs as it is.
	e = only(t, x.Claims(snapshot(t, strings.Replace(claim, "pool: p", "pool: q", 1)), have))
	if e.Hash != first.Hash || e.Claim.Reason != actual.ReasonInputMissing {
		t.Errorf("%+v", e)
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
