// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"reflect"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// Each container of a record is shown with what is its own, in the order of the
// record; its state follows from whether it was started and from its sentry.
func TestContainerStatuses(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	exit := &actual.Exit{Known: true, Code: 3, Reason: actual.ReasonError, At: at}
	app := actual.Container{Name: actual.AppName, StartedAt: at, Failures: 1, Restarts: 2, LastExit: exit, Init: actual.InitOwn}
	for name, c := range map[string]struct {
		phase                actual.Phase
		sentry, gofer        process.Liveness
		wantApp, wantSidecar string
	}{
		"running":       {actual.PhaseRunning, process.Alive, process.Alive, StateRunning, StateWaiting},
		"being stopped": {actual.PhaseStopping, process.Alive, process.Alive, StateRunning, StateWaiting},
		"sentry gone":   {actual.PhaseRunning, process.Dead, process.Alive, StateTerminated, StateWaiting},
		"stopped":       {actual.PhaseStopped, process.None, process.None, StateTerminated, StateWaiting},
		"not known":     {actual.PhaseRunning, process.Unknown, process.Alive, StateUnknown, StateUnknown},
	} {
		o := &actual.Observed{Sentry: c.sentry, Gofer: c.gofer, Record: &actual.Record{Phase: c.phase, Containers: []actual.Container{app, {Name: "sidecar"}}}}
		want := []ContainerStatus{
			{Name: actual.AppName, State: c.wantApp, RestartCount: 2, Failures: 1, StartedAt: at, LastTermination: exit, Init: actual.InitOwn},
			{Name: "sidecar", State: c.wantSidecar},
		}
		if got := containerStatuses(o); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, expected %+v", name, got, want)
		}
	}
}
