// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"

	"sandboxctl.dev/desired/zone"
)

// checkTimezone tells what `timezone: host` means here, and whose data zones have.
func checkTimezone() finding {
	const name = "time zone"
	z, err := zone.OfHost()
	if err != nil {
		return finding{name, levelWarning, "no sandbox can start with timezone: host: " + err.Error()}
	}
	said := z.Name
	switch {
	case z.Assumed:
		said += ": /etc/localtime leads to no zone"
	case said == "":
		said = "one without a name, in /etc/localtime"
	}
	if _, err := os.Stat(zone.Dir); err != nil {
		said += "; no zones in " + zone.Dir + ": those of this program are used"
	}
	return finding{name, levelOK, said}
}
