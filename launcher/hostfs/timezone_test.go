// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"fmt"
	"testing"

	"sandboxctl.dev/desired/zone"
	"sandboxctl.dev/gofer"
)

// The view of the host has the zone of the sandbox, with data of its own where the host has
// none: nothing can be added below /usr.
func TestHostTreeZone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zone *zone.Zone
		want string
	}{
		"installed": {
			&zone.Zone{Name: "Asia/Tokyo", Data: []byte("x"), Installed: true},
			"[] [etc/timezone=Asia/Tokyo\n] [{etc/localtime /usr/share/zoneinfo/Asia/Tokyo}]",
		},
		"not installed": {
			&zone.Zone{Name: "America/Indiana/Knox", Data: []byte("x")},
			"[{etc 493} {etc/zoneinfo 493} {etc/zoneinfo/America 493} {etc/zoneinfo/America/Indiana 493}] " +
				"[etc/zoneinfo/America/Indiana/Knox=x etc/timezone=America/Indiana/Knox\n] [{etc/localtime /etc/zoneinfo/America/Indiana/Knox}]",
		},
		"no name": {&zone.Zone{Data: []byte("x")}, "[] [etc/localtime=x] []"},
		"none":    {nil, "[] [] []"},
	} {
		tree := &gofer.Tree{}
		addZone(tree, c.zone)
		files := []string{}
		for _, f := range tree.Files {
			files = append(files, f.Path+"="+string(f.Data))
		}
		if got := fmt.Sprint(tree.Dirs, files, tree.Links); got != c.want {
			t.Errorf("%s: %s, expected %s", name, got, c.want)
		}
	}
}
