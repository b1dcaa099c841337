// SPDX-License-Identifier: Apache-2.0

package pulling

import (
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
)

// Moved tells of a reference that means another image to the store now than when the sandbox was
// started, with the image had; "" if that is not known. It is not followed by itself. images is the
// digest of each reference.
func Moved(images map[string]string, e *desired.Entry, rec *actual.Record, had string) *actual.Warning {
	if e == nil || had == "" || rec.Phase == actual.PhaseStopping {
		return nil
	}
	img := e.Sandbox.Spec.Root.Image
	now := images[img.Reference()]
	if now == "" || now == had {
		return nil
	}
	msg := fmt.Sprintf("%s is %s now; the sandbox has %s and keeps it at restarts", img.Reference(), now, had)
	if img.PullPolicy == imageref.PullAlways {
		msg += "; `sandboxctl restart " + rec.Name + "` follows it"
	} else {
		msg += ", until its manifest changes; with pullPolicy: Always `sandboxctl restart " + rec.Name + "` follows it"
	}
	return &actual.Warning{Reason: actual.WarningImageMoved, Message: msg}
}
