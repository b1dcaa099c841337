// SPDX-License-Identifier: Apache-2.0

package world

import (
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile"
)

func TestNoSuch(t *testing.T) {
	t.Parallel()
	w := &World{}
	if got := w.NoSuch("x").Error(); got != `no sandbox "x"; there are none` {
		t.Error(got)
	}
	for n := range strings.FieldsSeq("a b c d e f g h i") {
		w.Statuses = append(w.Statuses, reconcile.Status{Name: n})
		if got := w.NoSuch("x").Error(); n == "b" && got != `no sandbox "x"; there are a, b` || n == "i" && !strings.Contains(got, "see `sandboxctl get`") {
			t.Error(got)
		}
	}
	for name, want := range map[string]string{
		"a":          "no manifest that can be read defines a, which is Invalid (broken)",
		"sandbox/b":  `no sandbox "sandbox/b"; did you mean "b"?`,
		"sandbox/zz": "no sandbox \"sandbox/zz\"; see `sandboxctl get`",
	} {
		w.Statuses[0] = reconcile.Status{Name: "a", Phase: reconcile.PhaseInvalid, Conditions: []reconcile.Condition{{Type: reconcile.CondManifestValid, Status: reconcile.False, Message: "broken"}}}
		if got := w.NoSuch(name).Error(); got != want {
			t.Errorf("%s: %s, expected %s", name, got, want)
		}
	}
	if s := w.Status("c"); s == nil || s.Name != "c" || w.Status("x") != nil {
		t.Errorf("%v", s)
	}
}

func TestHeadline(t *testing.T) {
	t.Parallel()
	cond := func(typ, status, message string) reconcile.Condition {
		return reconcile.Condition{Type: typ, Status: status, Message: message}
	}
	for want, conds := range map[string][]reconcile.Condition{
		"":        {cond(reconcile.CondReady, reconcile.True, "runs"), cond(reconcile.CondStalled, reconcile.False, "no")},
		"broken":  {cond(reconcile.CondReady, reconcile.False, "down"), cond(reconcile.CondManifestValid, reconcile.False, "broken")},
		"stuck":   {cond(reconcile.CondReconciling, reconcile.True, "at it"), cond(reconcile.CondStalled, reconcile.True, "stuck")},
		"at it":   {cond(reconcile.CondReady, reconcile.False, "down"), cond(reconcile.CondReconciling, reconcile.True, "at it")},
		"down":    {cond(reconcile.CondReady, reconcile.False, "down"), cond(reconcile.CondStalled, reconcile.True, "")},
		"no cpus": {cond(reconcile.CondReady, reconcile.True, ""), cond(reconcile.CondResourcesEnforced, reconcile.False, "no cpus")},
	} {
		if got := Headline(&reconcile.Status{Conditions: conds}); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
	// What waits for its next start says why.
	for want, x := range map[string]*actual.Exit{
		"next start": nil, "Error (1); next start": {Reason: "Error", Code: 1, Known: true}, "CreateFailed: no; next start": {Reason: "CreateFailed", Message: "no"},
	} {
		waits := reconcile.Condition{Type: reconcile.CondReconciling, Status: reconcile.True, Reason: actual.ReasonBackOff, Message: "next start"}
		if got := Headline(&reconcile.Status{LastTermination: x, Conditions: []reconcile.Condition{waits}}); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}
