// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/reconciletest"
)

func withFiles(name string, from ...desired.EnvFrom) *desired.Entry {
	return reconciletest.Entry(name, "a", func(s *desired.Spec) { s.EnvFrom = from })
}

// A sandbox is started when what its manifest refers to is there, and started again when
// that has changed. Nothing is stopped because something is gone.
func TestPlanInputs(t *testing.T) {
	t.Parallel()
	const path = "/srv/a.env"
	needed := desired.EnvFrom{File: path, OnChange: desired.OnChangeRestart}
	optional, ignored := needed, needed
	optional.Optional, ignored.OnChange = true, desired.OnChangeIgnore
	one, maybe, still := withFiles("a", needed), withFiles("a", optional), withFiles("a", ignored)
	changed := reconciletest.Entry("a", "b", func(s *desired.Spec) { s.EnvFrom = []desired.EnvFrom{needed} })
	read := func(o actual.Observed, id string) actual.Observed {
		o.Record.Inputs = []actual.Input{{File: path, ID: id}}
		return o
	}
	stalled := func(o actual.Observed) actual.Observed {
		o.Record.App().LastExit = &actual.Exit{Reason: actual.ReasonCreateFailed, Permanent: true}
		return o
	}
	completed := func(o actual.Observed) actual.Observed {
		o.Record.App().Completed = true
		return o
	}
	restarted := func(in reconcile.Input) reconcile.Input {
		in.Actual.Requests = []actual.Request{{Kind: actual.RequestRestart, Name: "a", Token: "t"}}
		return in
	}
	refused := func(in reconcile.Input) reconcile.Input {
		in.Retries = map[string]reconcile.Retry{"a": {Op: reconcile.OpCreate, Failures: 1, Permanent: true, Hash: one.Hash}}
		return in
	}
	there, missing, hangs := needs.File{ID: "1"}, needs.File{Missing: true}, needs.File{Problem: "does not answer"}
	unfit := needs.File{Problem: "is a directory", Unfit: true}
	for name, c := range map[string]struct {
		in   reconcile.Input
		file needs.File
		want string
	}{
		"new":                            {input(true, []*desired.Entry{one}), there, "create a New"},
		"new, missing":                   {input(true, []*desired.Entry{one}), missing, "wake; delayed a InputMissing"},
		"new, may be missing":            {input(true, []*desired.Entry{maybe}), missing, "create a New"},
		"new, hangs":                     {input(true, []*desired.Entry{one}), hangs, "wake; delayed a InputMissing"},
		"new, a directory":               {input(true, []*desired.Entry{one}), unfit, "wake; delayed a InputMissing"},
		"optional, a directory":          {input(true, []*desired.Entry{maybe}), unfit, "wake; delayed a InputMissing"},
		"new, hangs, may be missing":     {input(true, []*desired.Entry{maybe}), hangs, "wake; delayed a InputMissing"},
		"runs":                           {input(true, []*desired.Entry{one}, read(running(one), "1")), there, ""},
		"changed":                        {input(true, []*desired.Entry{one}, read(running(one), "0")), there, "destroy a InputChanged graceful"},
		"came":                           {input(true, []*desired.Entry{maybe}, read(running(maybe), "")), there, "destroy a InputChanged graceful"},
		"changed, ignored":               {input(true, []*desired.Entry{still}, read(running(still), "0")), there, ""},
		"gone":                           {input(true, []*desired.Entry{one}, read(running(one), "1")), missing, ""},
		"gone, may be missing":           {input(true, []*desired.Entry{maybe}, read(running(maybe), "1")), missing, ""},
		"hangs":                          {input(true, []*desired.Entry{one}, read(running(one), "1")), hangs, ""},
		"of a start that read nothing":   {input(true, []*desired.Entry{one}, running(one)), there, ""},
		"new manifest":                   {input(true, []*desired.Entry{changed}, read(running(one), "1")), there, "destroy a SpecChanged graceful"},
		"new manifest, gone":             {input(true, []*desired.Entry{changed}, read(running(one), "1")), missing, "wake; delayed a InputMissing"},
		"stopped, gone":                  {input(true, []*desired.Entry{one}, read(stopped(one, 0), "1")), missing, "wake; delayed a InputMissing"},
		"refused before, changed":        {input(true, []*desired.Entry{one}, read(stalled(stopped(one, 1)), "0")), there, "create a InputChanged"},
		"refused just now, changed":      {refused(input(true, []*desired.Entry{one}, read(stalled(stopped(one, 1)), "0"))), there, "create a InputChanged"},
		"refused before":                 {input(true, []*desired.Entry{one}, read(stalled(stopped(one, 1)), "1")), there, ""},
		"a job that is done, changed":    {input(true, []*desired.Entry{one}, read(completed(stopped(one, 0)), "0")), there, ""},
		"manifest is missing, file gone": {input(false, nil, read(running(one), "1")), missing, ""},
		// What counts by its record is judged as what has a manifest.
		"manifest is missing, changed":            {input(false, nil, read(running(one), "0")), there, ""},
		"manifest is missing, restart":            {restarted(input(false, nil, read(running(one), "1"))), there, "destroy a RestartRequested graceful"},
		"manifest is missing, restart, file gone": {restarted(input(false, nil, read(running(one), "1"))), missing, "wake; delayed a InputMissing"},
		"manifest is missing, restart, hangs":     {restarted(input(false, nil, read(running(one), "1"))), hangs, "wake; delayed a InputMissing"},
		"manifest is missing, ended, file gone":   {input(false, nil, read(stopped(one, 0), "1")), missing, "wake; delayed a InputMissing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.in.Files = map[string]needs.File{path: c.file}
			p := reconcile.Compute(c.in)
			got := []string{}
			if s := show(p); s != "" {
				got = append(got, s)
			}
			for _, d := range p.Delayed {
				got = append(got, "delayed "+d.Name+" "+d.Reason)
				if d.Why == "" {
					t.Errorf("%s: it does not say why", d.Name)
				}
				if d.PreconditionFailed != (c.file.Missing || c.file.Unfit) {
					t.Errorf("%s: does it say that somebody has to change the host? %t", d.Name, d.PreconditionFailed)
				}
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("plan %q, expected %q", s, c.want)
			}
		})
	}
}

// Each of several files is compared with what was read of it, whatever their order.
func TestPlanInputsOfMany(t *testing.T) {
	t.Parallel()
	var from []desired.EnvFrom
	files, inputs := map[string]needs.File{}, []actual.Input{}
	for i := range 9 {
		path := "/srv/" + string(rune('a'+i))
		from = append(from, desired.EnvFrom{File: path, OnChange: desired.OnChangeRestart})
		files[path] = needs.File{ID: path}
		inputs = append(inputs, actual.Input{File: path, ID: path})
	}
	from = append(from, from[3]) // twice
	e := withFiles("a", from...)
	for order := range len(inputs) {
		inputs = append(inputs[1:], inputs[0])
		if order == 5 {
			slices.Reverse(inputs)
		}
		for changed := -1; changed < len(inputs); changed++ {
			o := running(e)
			o.Record.Inputs = append(slices.Clone(inputs), actual.Input{File: "/srv/gone", ID: "1"})
			if changed >= 0 {
				o.Record.Inputs[changed].ID = "0"
			}
			in := input(true, []*desired.Entry{e}, o)
			in.Files = files
			if p := reconcile.Compute(in); len(p.Actions) != min(changed+1, 1) {
				t.Errorf("order %d, %d is another one: %+v", order, changed, p.Actions)
			}
		}
	}
}

// A file that is written all the time has its sandbox started more and more rarely,
// whether it runs or its starts fail; the first changes are acted on at once.
func TestPlanInputsPace(t *testing.T) {
	t.Parallel()
	const path = "/srv/a.env"
	e := withFiles("a", desired.EnvFrom{File: path, OnChange: desired.OnChangeRestart})
	for changes, want := range map[int]time.Duration{0: 0, 1: 0, 4: 0, 5: time.Second, 6: 2 * time.Second, 9: 16 * time.Second, 13: 256 * time.Second, 14: 5 * time.Minute, 1 << 40: 5 * time.Minute} {
		for name, o := range map[string]actual.Observed{"runs": running(e), "failed": stopped(e, 1)} {
			o.Record.Inputs, o.Record.InputChanges = []actual.Input{{File: path, ID: "0"}}, changes
			for _, started := range []time.Duration{0, want - 1, want, want + time.Second, -time.Hour} {
				o.Record.CreatedAt = now.Add(-started)
				in := input(true, []*desired.Entry{e}, o)
				in.Files = map[string]needs.File{path: {ID: "1"}}
				p := reconcile.Compute(in)
				switch waits := started >= 0 && started < want; {
				case waits && (len(p.Actions) > 0 || len(p.Delayed) != 1 || !p.Delayed[0].Until.Equal(o.Record.CreatedAt.Add(want)) || p.Wake.IsZero()):
					t.Errorf("%s, change %d, %s after its start: it does not wait until %s: %+v", name, changes, started, want, p)
				case !waits && (len(p.Actions) != 1 || p.Actions[0].Reason != actual.ReasonInputChanged):
					t.Errorf("%s, change %d, %s after its start: %+v", name, changes, started, p)
				}
			}
		}
	}
}

// Not in parallel: it counts allocations.
func TestFilePaths(t *testing.T) {
	in := input(true, []*desired.Entry{withFiles("a", desired.EnvFrom{File: "/b"}, desired.EnvFrom{File: "/a"}), withFiles("b", desired.EnvFrom{File: "/b"}), withFiles("c")})
	if got := needs.Paths(in.Desired, nil); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("%q", got)
	}
	none := input(true, []*desired.Entry{withFiles("c")})
	if n := testing.AllocsPerRun(10, func() { needs.Paths(none.Desired, nil) }); n > 0 {
		t.Errorf("%v allocations for manifests without files", n)
	}
}

// A volume with onChange: signal is given new files while its sandbox runs, and everything
// else comes before that.
func TestPlanRefresh(t *testing.T) {
	t.Parallel()
	const path, other = "/srv/a", "/srv/b"
	volume := func(name, path, onChange string, optional bool) desired.Volume {
		return desired.Volume{Name: name, MountPath: "/" + name, Config: &desired.FileSet{Files: map[string]string{"f": path}, OnChange: onChange, Optional: optional}}
	}
	with := func(volumes ...desired.Volume) *desired.Entry {
		return reconciletest.Entry("a", "a", func(s *desired.Spec) { s.Volumes = volumes })
	}
	signal := with(volume("v", path, desired.OnChangeSignal, false), volume("w", other, desired.OnChangeSignal, false))
	mixed := with(volume("v", path, desired.OnChangeSignal, false), volume("w", other, desired.OnChangeRestart, false))
	maybe := with(volume("v", path, desired.OnChangeSignal, true), volume("w", other, desired.OnChangeIgnore, false))
	suspended := reconciletest.Entry("a", "a", func(s *desired.Spec) {
		s.Volumes, s.Suspend = signal.Sandbox.Spec.Volumes, true
	})
	of := func(e *desired.Entry, o actual.Observed, a, b string, change ...func(*actual.Record)) reconcile.Input {
		o.Record.Inputs = []actual.Input{{File: path, ID: a}, {File: other, ID: b}}
		for _, f := range change {
			f(o.Record)
		}
		return input(true, []*desired.Entry{e}, o)
	}
	pending := func(volumes ...string) func(*actual.Record) {
		return func(r *actual.Record) { r.Refresh = &actual.Refresh{Pending: volumes, At: now.Add(-time.Minute)} }
	}
	last := func(ago time.Duration) func(*actual.Record) {
		return func(r *actual.Record) { r.Refresh = &actual.Refresh{At: now.Add(-ago), Count: 1} }
	}
	away := func(in reconcile.Input) reconcile.Input {
		in.Desired.Entries, in.Desired.Complete = nil, false
		return in
	}
	denied := func(in reconcile.Input) reconcile.Input {
		in.Denied = map[string]string{"a": "it is not allowed"}
		return in
	}
	busy := func(in reconcile.Input) reconcile.Input {
		in.Operations = map[string]reconcile.Operation{"a": {Op: reconcile.OpRefresh, Hash: signal.Hash}}
		return in
	}
	there, missing, hangs := needs.File{ID: "1"}, needs.File{Missing: true}, needs.File{Problem: "does not answer"}
	for name, c := range map[string]struct {
		in   reconcile.Input
		file needs.File // of path; the other one is there
		want string
	}{
		"same":                      {of(signal, running(signal), "1", "1"), there, ""},
		"changed":                   {of(signal, running(signal), "0", "1"), there, "refresh a InputChanged v"},
		"both changed":              {of(signal, running(signal), "0", "0"), there, "refresh a InputChanged v w"},
		"a restart for the other":   {of(mixed, running(mixed), "0", "0"), there, "destroy a InputChanged graceful"},
		"the other is the same":     {of(mixed, running(mixed), "0", "1"), there, "refresh a InputChanged v"},
		"the other is ignored":      {of(maybe, running(maybe), "1", "0"), there, ""},
		"it came":                   {of(maybe, running(maybe), "", "1"), there, "refresh a InputChanged v"},
		"it went":                   {of(maybe, running(maybe), "1", "1"), missing, ""},
		"gone":                      {of(signal, running(signal), "1", "1"), missing, ""},
		"gone, the other changed":   {of(signal, running(signal), "1", "0"), missing, "refresh a InputChanged w"},
		"hangs, the other changed":  {of(signal, running(signal), "1", "0"), hangs, "refresh a InputChanged w"},
		"not finished":              {of(signal, running(signal), "1", "1", pending("v")), there, "refresh a InputChanged v"},
		"not finished, and another": {of(signal, running(signal), "1", "0", pending("v")), there, "refresh a InputChanged v w"},
		"not finished, and gone":    {of(signal, running(signal), "1", "1", pending("v")), missing, "wake; delayed InputMissing"},
		"not finished, optional":    {of(maybe, running(maybe), "1", "1", pending("v")), missing, "refresh a InputChanged v"},
		"a moment after the last":   {of(signal, running(signal), "0", "1", last(time.Second/2)), there, "wake; delayed InputChanged"},
		"a second after the last":   {of(signal, running(signal), "0", "1", last(time.Second)), there, "refresh a InputChanged v"},
		"the clock was set back":    {of(signal, running(signal), "0", "1", last(-time.Hour)), there, "refresh a InputChanged v"},
		"a moment after its start":  {of(signal, running(signal), "0", "1", func(r *actual.Record) { r.App().StartedAt = now.Add(-time.Second / 2) }), there, "wake; delayed InputChanged"},
		"suspended":                 {of(suspended, running(signal), "0", "0", pending("v")), there, "destroy a Suspended graceful"},
		"stopped":                   {of(signal, stopped(signal, 0), "0", "0"), there, "create a BackOff"},
		"manifest away":             {away(of(signal, running(signal), "0", "0", pending("v"))), there, ""},
		"not allowed any more":      {denied(of(signal, running(signal), "0", "0")), there, ""},
		"under way":                 {busy(of(signal, running(signal), "0", "0", pending("v"))), there, ""},
		"under way, suspended":      {busy(of(suspended, running(signal), "0", "0", pending("v"))), there, "cancel a Suspended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.in.Files = map[string]needs.File{path: c.file, other: there}
			p := reconcile.Compute(c.in)
			got := []string{}
			if s := show(p); s != "" {
				for _, a := range p.Actions {
					s = strings.TrimSpace(s + " " + strings.Join(a.Volumes, " "))
				}
				got = append(got, s)
			}
			for _, d := range p.Delayed {
				got = append(got, "delayed "+d.Reason)
			}
			for _, x := range p.Cancel {
				got = append(got, "cancel "+x.Name+" "+x.Reason)
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("plan %q, expected %q", s, c.want)
			}
		})
	}
}

// While files are replaced, or are to be, a sandbox is ready and has not converged: who waits
// for a change waits for them.
func TestStatusOfRefresh(t *testing.T) {
	t.Parallel()
	e := reconciletest.Entry("a", "a", func(s *desired.Spec) {
		s.Volumes = []desired.Volume{{Name: "v", MountPath: "/v", Config: &desired.FileSet{Files: map[string]string{"f": "/a"}, OnChange: desired.OnChangeSignal}}}
	})
	for name, c := range map[string]struct {
		id   string
		op   *reconcile.Operation
		want string
	}{
		"same":      {"1", nil, "False Converged "},
		"to do":     {"0", nil, "True InputChanged it will be given new files: InputChanged"},
		"under way": {"0", &reconcile.Operation{Op: reconcile.OpRefresh, Hash: e.Hash}, "True InputChanged its files are being replaced"},
	} {
		o := running(e)
		o.Record.Inputs, o.Record.Refresh = []actual.Input{{File: "/a", ID: c.id}}, &actual.Refresh{Count: 3}
		in := input(true, []*desired.Entry{e}, o)
		in.Files = map[string]needs.File{"/a": {ID: "1"}}
		if c.op != nil {
			in.Operations = map[string]reconcile.Operation{"a": *c.op}
		}
		list := reconcile.Statuses(in, reconcile.Compute(in))
		s := list[0]
		r := s.Condition(reconcile.CondReconciling)
		if got := r.Status + " " + r.Reason + " " + r.Message; got != c.want || s.Condition(reconcile.CondReady).Status != reconcile.True || s.Refresh.Count != 3 {
			t.Errorf("%s: %q, %+v, expected %q", name, got, s, c.want)
		}
	}
}
