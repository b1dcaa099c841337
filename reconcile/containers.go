// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// States of a container.
const (
	StateWaiting    = "Waiting"
	StateRunning    = "Running"
	StateTerminated = "Terminated"
	StateUnknown    = "Unknown"
)

// ContainerStatus is what is shown of one container.
type ContainerStatus struct {
	// Its name in the sandbox.
	Name string `json:"name"`
	// `Waiting`: its application has not been started. `Running`, `Terminated`: it was, and
	// runs or has ended. `Unknown`: its process is neither proven alive nor proven dead.
	State string `json:"state"`
	// How often it was started again after its application had ended.
	RestartCount int64 `json:"restartCount"`
	// How many failures in a row there were.
	Failures int `json:"failures,omitempty"`
	// When its application was started.
	StartedAt time.Time `json:"startedAt,omitzero"`
	// How its last run ended.
	LastTermination *actual.Exit `json:"lastTermination,omitempty"`
	// Whether its process 1 is an init process, or why not.
	Init string `json:"init,omitempty"`
}

// containerStatuses describes the containers of a sandbox.
func containerStatuses(o *actual.Observed) []ContainerStatus {
	var out []ContainerStatus
	for i := range o.Record.Containers {
		c := &o.Record.Containers[i]
		s := ContainerStatus{
			Name: c.Name, State: StateTerminated, RestartCount: c.Restarts, Failures: c.Failures, StartedAt: c.StartedAt,
			LastTermination: c.LastExit, Init: c.Init,
		}
		switch {
		case Unknown(o):
			s.State = StateUnknown
		case c.StartedAt.IsZero():
			s.State = StateWaiting
		case o.Sentry == process.Alive:
			s.State = StateRunning
		}
		out = append(out, s)
	}
	return out
}
