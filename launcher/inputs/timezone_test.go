// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/zone"
)

// What is noted of the zone of the host at a start is what a look finds, and no file that a
// manifest can name has the same place.
func TestHostZone(t *testing.T) {
	t.Parallel()
	want, err := zone.OfHost()
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{}
	if err := r.timezone(zone.Host); err != nil || len(r.read.Inputs) != 1 || r.read.Timezone.ID() != want.ID() {
		t.Fatalf("%+v %v", r.read, err)
	}
	found := new(Looker).Look([]string{"/etc/hostname", desired.HostZoneRef})
	if f := found[desired.HostZoneRef]; f.ID != r.read.Inputs[0].ID || r.read.Inputs[0].File != desired.HostZoneRef || f.Missing != want.Assumed || f.Problem != "" {
		t.Errorf("%+v, expected %+v", f, r.read.Inputs[0])
	}
	// Of another one nothing has to be noted: the manifest says which it is.
	r = &reader{}
	if err := r.timezone("Asia/Tokyo"); err != nil || len(r.read.Inputs) != 0 || r.read.Timezone.Name != "Asia/Tokyo" {
		t.Errorf("%+v %v", r.read, err)
	}
	if err := r.timezone("../../etc/shadow"); err == nil {
		t.Error("a path is a zone")
	}
}
