// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"time"

	"sandboxctl.dev/reconcile/declared"
)

// volumes plans what is declared of named volumes. On a full disk none is made.
func (c *computation) volumes() {
	if len(c.in.Volumes) == 0 || c.in.Actual.DiskFull != "" {
		return
	}
	var wake time.Time
	c.plan.Volumes, c.plan.VolumesLater, wake = declared.Decide(c.in.Desired, c.in.Volumes, c.in.VolumeRetries, c.in.Now)
	if !wake.IsZero() {
		c.wakeAt(wake)
	}
}
