// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/resumption"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/resolve"
)

// adoption is a create of a sandbox with a bundle that was cut short after its gates
// were opened.
type adoption struct {
	*testing.T
	store  *actual.Store
	bundle string
	rec    *actual.Record
	policy string // "" can't be read
}

const adoptedConfig = `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["/bin/x"],"cwd":"/","user":{"uid":5,"gid":6}}}`

// config makes the config.json of the bundle another one.
func (a *adoption) config(text string) {
	if err := os.WriteFile(filepath.Join(a.bundle, "config.json"), []byte(text), 0o600); err != nil {
		a.Fatal(err)
	}
}

// path is that of the file that says what was built.
func (a *adoption) path() string {
	return filepath.Join(a.store.Path(), actual.SandboxesDir, "web", actual.SetupFile)
}

func (a *adoption) widePolicy() string {
	return "root: {hooks: true, bundles: [{path: " + a.bundle + ", access: readWrite}]}"
}

func newAdoption(t *testing.T, config string, change func(*desired.Spec)) *adoption {
	t.Helper()
	top := t.TempDir()
	a := &adoption{T: t, bundle: filepath.Join(top, "b")}
	if err := os.Mkdir(a.bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	a.config(config)
	a.policy = a.widePolicy()
	var err error
	if a.store, err = actual.OpenStore(filepath.Join(top, "state")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.store.Close() })
	sb := manifest(func(s *desired.Spec) {
		s.Root, s.Command = desired.Root{Bundle: a.bundle}, nil
		if change != nil {
			change(s)
		}
	})
	spec, err := desired.Canonical(sb)
	if err != nil {
		t.Fatal(err)
	}
	a.rec = &actual.Record{Name: "web", UID: "u", Attempt: 1, Spec: spec, Sentry: &process.Identity{PID: 2}, SetupFile: true, Containers: []actual.Container{{Name: actual.AppName}}}
	st, err := resolve.FromManifest(sb, hostPolicy(t, a.policy), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.store.Claim("web"), built.Record(a.store, a.rec, st)); err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a launcher began is finished with what it built, if the host policy of now
// allows that. A policy that does not, or can't be read, and a file that is damaged,
// are no reason to end an application that may run: it is left running, and one that
// does not run is not started. Only hooks are a reason: nobody knows which have run.
func TestAdoptable(t *testing.T) {
	t.Parallel()
	const (
		started = "started" // if it was not
		left    = "left running"
		over    = "starts over"
	)
	hooks := strings.Replace(adoptedConfig, `"root"`, `"hooks":{"poststop":[{"path":"/bin/true"}]},"root"`, 1)
	inside := strings.Replace(adoptedConfig, `"root"`, `"hooks":{"startContainer":[{"path":"/bin/true"}]},"root"`, 1)
	more := strings.NewReplacer(`"uid":5`, `"uid":0`, `"cwd":"/"`, `"cwd":"/x","capabilities":{"bounding":["CAP_SYS_ADMIN"]}`).Replace(adoptedConfig)
	host := func(s *desired.Spec) { s.Root, s.Command = desired.Root{Host: &desired.HostRoot{}}, []string{"sh"} }
	for name, c := range map[string]struct {
		built  string
		change func(*desired.Spec)
		after  func(a *adoption)
		want   string
	}{
		"nothing changed":                   {adoptedConfig, nil, func(*adoption) {}, started},
		"the bundle was edited":             {adoptedConfig, nil, func(a *adoption) { a.config(more) }, started},
		"it has hooks now":                  {adoptedConfig, nil, func(a *adoption) { a.config(hooks) }, started},
		"its config.json is broken":         {adoptedConfig, nil, func(a *adoption) { a.config("{") }, started},
		"the bundle is gone":                {adoptedConfig, nil, func(a *adoption) { must(a.T, os.RemoveAll(a.bundle)) }, started},
		"a view of the host":                {adoptedConfig, host, func(*adoption) {}, started},
		"the policy has no bundles":         {adoptedConfig, nil, func(a *adoption) { a.policy = "root: {bundles: []}" }, left},
		"the policy has no root":            {strings.Replace(adoptedConfig, `"uid":5`, `"uid":0`, 1), nil, func(a *adoption) { a.policy += "\nrootUser: false" }, left},
		"the policy has no root, edited":    {adoptedConfig, nil, func(a *adoption) { a.config(more); a.policy += "\nrootUser: false" }, started},
		"the policy is broken":              {adoptedConfig, nil, func(a *adoption) { a.policy = "" }, left},
		"a view of the host, broken policy": {adoptedConfig, host, func(a *adoption) { a.policy = "" }, left},
		"the file is missing":               {adoptedConfig, nil, func(a *adoption) { must(a.T, os.Remove(a.path())) }, left},
		"the file is cut short":             {adoptedConfig, nil, func(a *adoption) { must(a.T, os.Truncate(a.path(), 100)) }, left},
		"the file is of another attempt":    {adoptedConfig, nil, func(a *adoption) { a.rec.Attempt = 2 }, left},
		"an earlier version":                {adoptedConfig, nil, func(a *adoption) { a.rec.SetupFile = false }, left},
		"an earlier version, no bundle":     {adoptedConfig, host, func(a *adoption) { a.rec.SetupFile = false }, started},
		"hooks":                             {hooks, nil, func(*adoption) {}, over},
		"hooks that went since":             {hooks, nil, func(a *adoption) { a.config(adoptedConfig) }, over},
		"hooks, and a broken policy":        {hooks, nil, func(a *adoption) { a.policy = "" }, over},
		"hooks have begun, no file":         {hooks, nil, func(a *adoption) { a.rec.App().Hooks = json.RawMessage("{}"); must(a.T, os.Remove(a.path())) }, over},
		"hooks in the sandbox":              {inside, nil, func(*adoption) {}, over},
	} {
		a := newAdoption(t, c.built, c.change)
		built, err := built.Of(a.store, a.rec)
		if err != nil {
			t.Fatal(err)
		}
		c.after(a)
		l, err := New(Options{Store: a.store, Policy: func() (*hostpolicy.Policy, error) {
			if a.policy == "" {
				return nil, errors.New("it is broken")
			}
			return hostPolicy(t, a.policy), nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		st, ok := l.adoptable(a.rec)
		if got := map[bool]string{true: left, false: over}[ok]; st == nil && got != c.want {
			t.Errorf("%s: %s, expected %s", name, got, c.want)
		}
		if !a.rec.SetupFile {
			// Nobody knows the defaults of the policy then, and nobody asks.
			built.Defaults, built.DefaultDisk, built.LogSize, built.App().Init = cgroup.Limits{}, 0, 0, ""
		}
		if st != nil && (c.want != started || !ok || !reflect.DeepEqual(st, built)) {
			t.Errorf("%s: started with %+v, expected %s, built was %+v", name, st, c.want, built)
		}
	}
}

// A start from a saved state is not finished by a fresh one in the same sandbox, and one whose
// command after the restore has not ended well starts over: nobody knows how far that came.
func TestPendingResumption(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		resumption *resumption.Resumption
		restores   bool
		adopted    bool
		started    bool
	}{
		"a fresh start":         {nil, false, true, true},
		"restored":              {&resumption.Resumption{ID: "1"}, true, true, false},
		"not ready":             {&resumption.Resumption{ID: "1", Unready: true}, true, false, false},
		"of a checkpoint":       {&resumption.Resumption{Unready: true}, true, false, false},
		"it failed, and is new": {&resumption.Resumption{ID: "1", Failed: "x"}, false, true, true},
	} {
		a := newAdoption(t, adoptedConfig, nil)
		a.rec.App().Resumption = c.resumption
		st, err := built.Of(a.store, a.rec)
		must(t, err)
		st.App().Restores = c.restores
		must(t, built.Record(a.store, a.rec, st))
		l, err := New(Options{Store: a.store, Policy: func() (*hostpolicy.Policy, error) { return hostPolicy(t, a.policy), nil }})
		must(t, err)
		if st, ok := l.adoptable(a.rec); ok != c.adopted || (st != nil) != c.started {
			t.Errorf("%s: adopted %v, started %v", name, ok, st != nil)
		}
	}
}

// Commands and checkpoints are told what was built, or that it can't be told: never
// what the bundle says by now.
func TestSetupOfRecord(t *testing.T) {
	t.Parallel()
	a := newAdoption(t, adoptedConfig, nil)
	a.config(strings.Replace(adoptedConfig, `"uid":5`, `"uid":0`, 1))
	if args, _, err := built.Exec(a.store, a.rec, []string{"id"}); err != nil || args.KUID != 5 || args.KGID != 6 || args.Argv[0] != "id" {
		t.Errorf("%+v %v", args, err)
	}
	earlier := a.rec.Clone()
	earlier.SetupFile, earlier.Phase = false, actual.PhaseRunning
	if args, _, err := built.Exec(a.store, earlier, []string{"id"}); err == nil || !strings.Contains(err.Error(), "an earlier version of sandboxctl started it") || !strings.Contains(err.Error(), "a restart writes") {
		t.Errorf("started by an earlier version: %+v %v", args, err)
	}
	running := a.rec.Clone()
	running.Version, running.Phase = actual.RecordVersion, actual.PhaseRunning
	must(t, a.store.Put(running))
	if err := built.Check(a.store, running); err != nil {
		t.Error(err)
	}
	must(t, os.Truncate(a.path(), 100))
	if args, _, err := built.Exec(a.store, a.rec, []string{"id"}); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("damaged: %+v %v", args, err)
	}
	if err := built.Check(a.store, running); err == nil || !strings.Contains(err.Error(), "it runs on, and a restart writes the file anew") {
		t.Errorf("damaged: %v", err)
	}
	// It has ended since the record was read.
	stopped := running.Clone()
	stopped.Phase, stopped.SetupFile = actual.PhaseStopped, false
	must(t, a.store.Put(stopped))
	if err := built.Check(a.store, running); err != nil {
		t.Errorf("ended meanwhile: %v", err)
	}
}
