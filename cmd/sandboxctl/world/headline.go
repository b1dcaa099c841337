// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile"
)

// ExitText says how a run ended.
func ExitText(x *actual.Exit) string {
	switch {
	case x == nil:
		return ""
	case x.Known:
		return fmt.Sprintf("%s (%d)", x.Reason, x.Code)
	}
	return x.Reason
}

// Headline is the one message that matters most.
func Headline(s *reconcile.Status) string {
	for _, c := range []struct{ typ, bad string }{
		{reconcile.CondManifestValid, reconcile.False},
		{reconcile.CondStalled, reconcile.True},
		{reconcile.CondReconciling, reconcile.True},
		{reconcile.CondReady, reconcile.False},
		{reconcile.CondResourcesEnforced, reconcile.False},
	} {
		if cond := s.Condition(c.typ); cond != nil && cond.Status == c.bad && cond.Message != "" {
			if why := LastFailure(s); why != "" && c.typ == reconcile.CondReconciling && cond.Reason == actual.ReasonBackOff {
				return why + "; " + cond.Message
			}
			return cond.Message
		}
	}
	if len(s.Warnings) > 0 {
		w := s.Warnings[0]
		more := ""
		if n := len(s.Warnings) - 1; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		return "warning: " + w.Reason + ": " + w.Message + more
	}
	return ""
}

// EndText says when the time of a sandbox is over, or when it is given up, "" if never.
func EndText(s *reconcile.Status) string {
	switch {
	case s.Retired:
		return "given up: its ttlAfterFinished is over"
	case !s.RetiresAt.IsZero():
		return "given up at " + s.RetiresAt.Local().Format(time.RFC3339)
	case !s.EndsAt.IsZero():
		return "ends at " + s.EndsAt.Local().Format(time.RFC3339)
	}
	return ""
}

// LastFailure is why a sandbox waits for its next start.
func LastFailure(s *reconcile.Status) string {
	if x := s.LastTermination; x != nil && x.Message != "" {
		return x.Reason + ": " + x.Message
	}
	return ExitText(s.LastTermination)
}
