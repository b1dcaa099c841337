// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Records that an earlier version wrote of sandboxes in every state: nothing of them
// is lost, and what belongs to the application is the container's.
func TestRecordUpgradeContainers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	exit := &Exit{Known: true, Code: 3, Reason: ReasonError, At: at}
	const exitText = `{"known":true,"code":3,"reason":"Error","at":"2026-01-02T03:04:05Z"}`
	const pair = `"sentry":{"pid":100,"inode":7,"startTime":8,"bootID":"b"},"gofer":{"pid":101,"inode":9,"startTime":8,"bootID":"b"}`
	for name, c := range map[string]struct {
		body   string
		app    Container
		ending *Ending
		phase  Phase
	}{
		"creating": {`"phase":"Creating","failures":2`, Container{Failures: 2}, nil, PhaseCreating},
		"running": {
			`"phase":"Running",` + pair + `,"startedAt":"2026-01-02T03:04:05Z","restarts":4,"failures":1,"lastExit":` + exitText,
			Container{StartedAt: at, Restarts: 4, Failures: 1, LastExit: exit},
			nil, PhaseRunning,
		},
		"exited, to be restarted": {
			`"phase":"Stopped","startedAt":"2026-01-02T03:04:05Z","failures":1,"ending":{"reason":"Exited","exit":` + exitText + `,"failures":1},"lastExit":` + exitText,
			Container{StartedAt: at, Failures: 1, LastExit: exit},
			&Ending{Reason: ReasonExited, Containers: []ContainerEnding{{Name: AppName, Exit: exit, Failures: 1}}}, PhaseStopped,
		},
		"completed": {
			`"phase":"Stopped","completed":true,"cleanExits":2,"ending":{"reason":"Exited","cleanExits":2,"completed":true},"lastExit":` + exitText,
			Container{Completed: true, CleanExits: 2, LastExit: exit},
			&Ending{Reason: ReasonExited, Containers: []ContainerEnding{{Name: AppName, CleanExits: 2, Completed: true}}}, PhaseStopped,
		},
		"failed to start": {
			`"phase":"Stopped","failures":3,"lastExit":{"known":false,"code":0,"reason":"CreateFailed","message":"no","at":"2026-01-02T03:04:05Z","terminal":true}`,
			Container{Failures: 3, LastExit: &Exit{Reason: ReasonCreateFailed, Message: "no", At: at, Permanent: true}},
			nil, PhaseStopped,
		},
		"being stopped": {
			`"phase":"Stopping",` + pair + `,"ending":{"reason":"Suspended","stopSignal":"SIGTERM","grace":1000000000,"failures":2}`,
			Container{},
			&Ending{Reason: ReasonSuspended, StopSignal: "SIGTERM", Grace: time.Second, Containers: []ContainerEnding{{Name: AppName, Failures: 2}}}, PhaseStopping,
		},
		"of an OCI client": {
			`"phase":"Created",` + pair + `,"container":{"bundle":"/b","annotations":{"a":"b"},"paused":true}`,
			Container{OCI: &OCIContainer{Bundle: "/b", Annotations: map[string]string{"a": "b"}, Paused: true}},
			nil, PhaseCreated,
		},
		"nulls": {`"phase":"Stopped","container":null,"lastExit":null,"ending":null`, Container{}, nil, PhaseStopped},
	} {
		for _, version := range []string{"1", "2", "3"} {
			r, err := DecodeRecord(reseal(`{"version":` + version + `,"name":"web","uid":"u","attempt":1,"generation":1,` + c.body + `}`))
			if err != nil {
				t.Errorf("%s, version %s: %v", name, version, err)
				continue
			}
			c.app.Name = AppName
			if !reflect.DeepEqual(r.Containers, []Container{c.app}) || !reflect.DeepEqual(r.Ending, c.ending) || r.Phase != c.phase {
				t.Errorf("%s, version %s: %+v, ending %+v, expected %+v and %+v", name, version, r.Containers, r.Ending, c.app, c.ending)
			}
			if (r.Sentry != nil) != strings.Contains(c.body, "sentry") || r.Sentry != nil && (r.Sentry.PID != 100 || r.Gofer.PID != 101) {
				t.Errorf("%s, version %s: sentry %+v, gofer %+v", name, version, r.Sentry, r.Gofer)
			}
			// It is written back as one of this version.
			b, err := EncodeRecord(r)
			if err != nil {
				t.Errorf("%s, version %s: %v", name, version, err)
				continue
			}
			if again, err := DecodeRecord(b); err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("%s, version %s: written and read again: %+v %v", name, version, again, err)
			}
		}
	}
}

// A record of no container, or of containers that this program can't run, is refused
// with the reason: App has nothing to return otherwise.
func TestRecordContainers(t *testing.T) {
	t.Parallel()
	two := func(r *Record) { r.Containers = append(r.Containers, Container{Name: "sidecar"}) }
	for name, c := range map[string]struct {
		change func(*Record)
		saying string
	}{
		"none":            {func(r *Record) { r.Containers = nil }, "0 containers"},
		"empty list":      {func(r *Record) { r.Containers = []Container{} }, "0 containers"},
		"two":             {two, "2 containers"},
		"another name":    {func(r *Record) { r.App().Name = "sidecar" }, `"sidecar"`},
		"no name":         {func(r *Record) { r.App().Name = "" }, `""`},
		"name of a file":  {func(r *Record) { r.App().Name = "../app" }, `"../app"`},
		"failures":        {func(r *Record) { r.App().Failures = -1 }, "negative"},
		"restarts":        {func(r *Record) { r.App().Restarts = -1 }, "negative"},
		"ends another":    {func(r *Record) { r.Ending.Containers[0].Name = "sidecar" }, "the order to stop"},
		"ends two":        {func(r *Record) { r.Ending.Containers = append(r.Ending.Containers, ContainerEnding{Name: AppName}) }, "the order to stop"},
		"ends it, unsaid": {func(r *Record) { r.Ending.Containers = nil }, ""},
	} {
		r := sample("web")
		c.change(r)
		body, err := json.Marshal(r)
		must(t, err)
		_, decoded := DecodeRecord(reseal(string(body)))
		_, encoded := EncodeRecord(r)
		for _, err := range []error{decoded, encoded} {
			if c.saying == "" && err != nil || c.saying != "" && (err == nil || !strings.Contains(err.Error(), c.saying)) {
				t.Errorf("%s: %v, expected %q", name, err, c.saying)
			}
		}
	}
	for name, containers := range map[string]string{
		"null": `null`, "an object": `{"name":"app"}`, "a null": `[null]`, "text": `["app"]`, "unknown field": `[{"name":"app","sentry":{"pid":7}}]`,
		"the same twice": `[{"name":"app"},{"name":"app"}]`,
	} {
		if r, err := DecodeRecord(reseal(`{"version":5,"name":"web","uid":"u","phase":"Stopped","containers":` + containers + `}`)); err == nil {
			t.Errorf("%s: taken for a record: %+v", name, r)
		}
	}
	// Nor is one that says it is of a version without them.
	for _, body := range []string{
		`"containers":[{"name":"app"}]`, `"containers":[]`, `"ending":{"reason":"Exited","containers":[{"name":"app"}]}`, `"oci":{"bundle":"/b"}`,
	} {
		for _, version := range []string{"2", "3"} {
			if r, err := DecodeRecord(reseal(`{"version":` + version + `,"name":"web","uid":"u","phase":"Stopped",` + body + `}`)); err == nil {
				t.Errorf("version %s with %s: taken for a record: %+v", version, body, r)
			}
		}
	}
}

// What happens to one container is not seen in another, nor in a copy of the record
// that was taken before.
func TestContainersApart(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	spec := &Ending{Reason: ReasonExited}
	for name, change := range map[string]func(r *Record){
		"started":   func(r *Record) { r.Started(onWall(now)) },
		"failed":    func(r *Record) { r.Failed("no", true, now) },
		"cancelled": func(r *Record) { r.Cancelled(ReasonSpecChanged, now) },
		"ended": func(r *Record) {
			r.Ended(&Ending{Reason: ReasonExited, Containers: []ContainerEnding{{Name: AppName, Failures: 9, Completed: true}}}, Outcome{OOM: true}, onWall(now))
		},
		"next": func(r *Record) { r.App().inherit(new(*r.App()), spec, true) },
	} {
		r := sample("web")
		r.App().Completed = false
		r.Containers = append(r.Containers, Container{Name: "sidecar", Failures: 4, Restarts: 7, LastExit: &Exit{Reason: "before"}})
		before := r.Clone()
		sidecar, app := before.Containers[1], before.Containers[0]
		change(r)
		if !reflect.DeepEqual(r.Containers[1], sidecar) {
			t.Errorf("%s: the other container became %+v", name, r.Containers[1])
		}
		if reflect.DeepEqual(*r.App(), app) {
			t.Errorf("%s: nothing has changed", name)
		}
		if !reflect.DeepEqual(before.Containers, []Container{app, sidecar}) || before.Phase != PhaseRunning {
			t.Errorf("%s: the copy was changed: %+v", name, before)
		}
	}
	// One that is not the first one ends in the same way.
	c := Container{Name: "sidecar", Failures: 4}
	c.ended(&Ending{Reason: ReasonExited}, ContainerEnding{Name: "sidecar", Failures: 5}, Outcome{Exit: &Exit{Known: true, Code: 2}}, onWall(now))
	if c.Failures != 5 || c.LastExit == nil || c.LastExit.Code != 2 {
		t.Errorf("%+v", c)
	}
}
