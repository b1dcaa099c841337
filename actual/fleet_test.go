// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

// Of many processes that are looked at together each is told apart: what lives, has
// died and was collected or not, is another process by now, and is on two records.
func TestObserveFleet(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const each = 12
	want := map[string]process.Liveness{}
	record := func(name string, id process.Identity, live process.Liveness) {
		want[name] = live
		rec := &Record{Version: RecordVersion, Name: name, UID: "u", Attempt: 1, Generation: 1, Phase: PhaseStopping, BootID: id.BootID, Sentry: &id, Containers: []Container{{Name: AppName}}}
		put(t, s, rec)
	}
	var lives []process.Identity
	for i := range each {
		_, alive := child(t)
		record(fmt.Sprintf("alive%d", i), alive, process.Alive)
		record(fmt.Sprintf("twice%d", i), alive, process.Alive)
		lives = append(lives, alive)

		zombie, id := child(t)
		must(t, zombie.Process.Kill())
		must(t, unix.Waitid(unix.P_PID, zombie.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
		record(fmt.Sprintf("zombie%d", i), id, process.Dead)

		other := alive
		if other.Inode != 0 {
			other.Inode++
		} else {
			other.StartTime++ // before Linux 6.9 it is what tells them apart
		}
		record(fmt.Sprintf("other%d", i), other, process.Dead)
	}
	elsewhere := lives[0]
	elsewhere.PIDNamespace++
	record("elsewhere", elsewhere, process.Unknown)
	o := NewObserver(s)
	defer o.Close()
	for look := range 3 {
		snap, err := o.Observe(t.Context())
		must(t, err)
		if len(snap.Sandboxes) != len(want) {
			t.Fatalf("look %d: %d sandboxes", look, len(snap.Sandboxes))
		}
		for _, sb := range snap.Sandboxes {
			if sb.Sentry != want[sb.Record.Name] || sb.Gofer != process.None {
				t.Errorf("look %d: %s is %v, its gofer %v: %s", look, sb.Record.Name, sb.Sentry, sb.Gofer, sb.Why)
			}
		}
		if look > 0 {
			continue
		}
		// One more dies between two looks.
		p, err := process.Open(lives[1])
		must(t, err)
		must(t, p.Signal(unix.SIGKILL))
		must(t, p.Wait(t.Context()))
		p.Close()
		want["alive1"], want["twice1"] = process.Dead, process.Dead
	}
}
