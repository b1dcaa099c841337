// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"fmt"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/endings"
)

// outcomeReasons are the reasons of the events that tell how an operation ended.
func outcomeReasons(op reconcile.Op) (done, failed string) {
	switch op {
	case reconcile.OpCreate:
		return actual.EventStarted, actual.EventCreateFailed
	case reconcile.OpResume:
		return actual.EventRecovered, actual.EventResumeFailed
	case reconcile.OpDestroy:
		return actual.EventStopped, actual.EventDestroyFailed
	case reconcile.OpRefresh:
		return actual.EventRefreshed, actual.EventRefreshFailed
	case reconcile.OpRepair:
		return actual.EventRecordRepaired, actual.EventRecordRepairFailed
	case reconcile.OpForget:
	}
	return actual.EventRemoved, actual.EventRemoveFailed
}

// doneMessage describes what an operation did. The end of the sandbox on record may tell
// more than the order to stop it did: what the kernel killed because memory ran out, or what did not
// end in its grace period.
func doneMessage(r *result) string {
	msg := r.action.Reason
	x := r.action.Ending.App().Exit
	if r.exit != nil {
		x = r.exit
	}
	if x != nil {
		// How it ended says why, unless something else is the reason.
		if how := endings.Describe(x); x.Reason == msg || x.Reason == actual.ReasonOOMKilled {
			msg = how
		} else {
			msg += ": " + how
		}
	}
	if len(r.action.Volumes) > 0 {
		msg += ": " + strings.Join(r.action.Volumes, ", ")
	}
	if r.outcome != "" {
		msg += ": " + r.outcome
	}
	return fmt.Sprintf("%s (took %s)", msg, r.took.Round(time.Millisecond))
}

// announceUnclear makes events of sandboxes that can't be judged: nothing is
// done about them, which nobody would understand without.
func (l *Loop) announceUnclear(have *actual.Snapshot) {
	var now map[string]string
	note := func(name, reason, message string) {
		if now == nil {
			now = map[string]string{}
		}
		now[name] = message
		if l.unclear[name] != message {
			l.opts.Log.Warn("sandbox left alone", keySandbox, name, keyReason, reason, keyError, message, keyPass, l.pass)
			l.event(actual.EventWarning, name, reason, message)
		}
	}
	for i := range have.Quarantined {
		note(have.Quarantined[i].Name, actual.EventRecordQuarantined, have.Quarantined[i].Reason+": "+have.Quarantined[i].Message)
	}
	for i := range have.Sandboxes {
		if o := &have.Sandboxes[i]; reconcile.Unknown(o) {
			note(o.Record.Name, actual.EventProcessUnknown, o.Why)
		}
	}
	l.unclear = now
}

// maxForeign is how many files for other programs are announced in one pass: a
// checkout may be full of them.
const maxForeign = 20

// announceForeign makes an event of each new file among the manifests that is for
// another program. Its author may have meant a sandbox and have made a mistake in its
// apiVersion: without the event that sandbox would just not appear. One with a Secret that
// others may read counts all the same, and is told as what it is.
func (l *Loop) announceForeign(in *desired.Snapshot) {
	now := map[string]bool{}
	news := 0
	for _, w := range in.Warnings {
		said, reason, key := "file ignored", actual.EventFileIgnored, w.File
		if w.Exposed {
			said, reason, key = "secret exposed", actual.EventSecretExposed, w.File+" exposed"
		}
		if now[key] = true; l.foreign[key] {
			continue
		}
		if news++; news <= maxForeign {
			l.opts.Log.Warn(said, keyReason, reason, keyError, w.Error(), keyPass, l.pass)
			l.event(actual.EventWarning, "", reason, w.Error())
		}
	}
	if news > maxForeign {
		l.event(actual.EventWarning, "", actual.EventFileIgnored, fmt.Sprintf("%d more files for other programs are ignored; see `sandboxctl validate`", news-maxForeign))
	}
	if !in.Complete {
		// What can't be read now is not told again when it can.
		for file := range l.foreign {
			now[file] = true
		}
	}
	l.foreign = now
}

// announce makes events of what changed between passes for the whole.
func (l *Loop) announce(in reconcile.Input, plan *reconcile.Plan) {
	l.announceUnclear(in.Actual)
	l.announceForeign(in.Desired)
	if g := plan.Guard != nil; g != l.guarded {
		l.guarded = g
		if g {
			l.opts.Log.Warn("removal needs approval", keyPass, l.pass, keyReason, plan.Guard.Message)
			l.event(actual.EventWarning, "", actual.EventApprovalNeeded, plan.Guard.Message)
		}
	}
	reason := in.Desired.Reason
	if reason == desired.ReasonUnsettled || reason == l.source {
		return
	}
	l.source = reason
	if reason == "" {
		l.opts.Log.Info("manifests complete", keyPass, l.pass)
		l.event(actual.EventNormal, "", actual.EventSourceComplete, "all manifests can be read again")
		return
	}
	l.opts.Log.Warn("manifests incomplete", keyReason, reason, keyError, in.Desired.Message, keyPass, l.pass)
	l.event(actual.EventWarning, "", actual.EventSourceIncomplete, reason+": "+in.Desired.Message)
}

func (l *Loop) event(typ, name, reason, message string) {
	if l.opts.Events == nil {
		return
	}
	if err := l.opts.Events.Append(actual.Event{Type: typ, Sandbox: name, Reason: reason, Message: message, Pass: l.pass}); err != nil {
		l.opts.Log.Warn("event not recorded", keyError, err)
	}
}
