// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/reconcile/reconciletest"
)

// The contract of the launcher holds on a host in memory, with processes that
// only follow the protocol, and with gVisor.
func TestConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		reconciletest.Conformance(t, func(t *testing.T) *reconciletest.Host {
			w := reconciletest.New()
			bad := reconciletest.Entry("web", "bad", nil)
			w.SetHook(func(op, name, step string) error {
				if op == "create" && step == "spawn" && w.Record(name).SpecHash == bad.Hash {
					return errors.New("it can't run")
				}
				return nil
			})
			return &reconciletest.Host{
				Operations: w, Observe: w.Observe,
				Entry: func(name, variant string) *desired.Entry { return reconciletest.Entry(name, variant, nil) },
				Bad:   func(string) *desired.Entry { return bad },
				Kill:  func(name, what string) { w.Kill(name, what, -1) },
				Check: func() error {
					// Two parts break the contract to see that it holds.
					err := w.Breaches()
					if err != nil && strings.HasSuffix(t.Name(), "life") && err.Error() == "forget of web, which is Running" ||
						strings.HasSuffix(t.Name(), "over_a_live_one") && err.Error() == "create of web over a live one" {
						return nil
					}
					return err
				},
			}
		})
	})
	t.Run("processes", func(t *testing.T) {
		requireHost(t)
		reconciletest.Conformance(t, func(t *testing.T) *reconciletest.Host { return realHost(t, stubOptions(t)) })
	})
	t.Run("gVisor", func(t *testing.T) {
		requireHost(t)
		reconciletest.Conformance(t, func(t *testing.T) *reconciletest.Host {
			return realHost(t, launcher.Options{SentryPath: filepath.Join(binDir, companion.SentryName), GoferPath: filepath.Join(binDir, companion.GoferName)})
		})
	})
}

// stubOptions make this test binary sentry and gofer.
func stubOptions(t *testing.T) launcher.Options {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	// Long enough for four at once on a machine that does other things.
	return launcher.Options{SentryPath: self, GoferPath: self, BootTimeout: 20 * time.Second}
}

// realHost is a launcher on a state directory of its own. What is on the host
// before and after must be the same.
func realHost(t *testing.T, opts launcher.Options) *reconciletest.Host {
	t.Helper()
	h, _ := realHostStore(t, opts)
	return h
}

func realHostStore(t *testing.T, opts launcher.Options) (*reconciletest.Host, *actual.Store) {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return realHostOn(t, opts, store), store
}

func realHostOn(t *testing.T, opts launcher.Options, store *actual.Store) *reconciletest.Host {
	t.Helper()
	opts.Store, opts.Policy = store, allowing(t, store.Path())
	l, err := launcher.New(opts)
	must(t, err)
	obs := actual.NewObserver(store)
	t.Cleanup(obs.Close)
	t.Cleanup(func() {
		// A test that failed leaves nothing either.
		list, err := store.List()
		must(t, err)
		for _, r := range list.Records {
			must(t, l.Destroy(context.Background(), r.Name, actual.Ending{Reason: "TestOver"}))
		}
	})
	h := &reconciletest.Host{Operations: l, Observe: obs.Observe}
	h.Entry = func(name, variant string) *desired.Entry {
		return reconciletest.Entry(name, "sleep", func(s *desired.Spec) {
			s.Args = []string{"1000"}
			s.Env = []desired.EnvVar{{Name: "VARIANT", Value: variant}}
		})
	}
	h.Bad = func(name string) *desired.Entry {
		return reconciletest.Entry(name, "sleep", func(s *desired.Spec) {
			s.Root = desired.Root{Dir: filepath.Join(store.Path(), "no-such-directory")}
			s.Overlay = desired.OverlayNone
		})
	}
	h.Kill = func(name, what string) {
		r, _, err := store.Get(name)
		must(t, err)
		id := r.Sentry
		if what == "gofer" {
			id = r.Gofer
		}
		p, err := process.Open(*id)
		must(t, err)
		defer p.Close()
		must(t, p.Signal(unix.SIGKILL))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		must(t, p.Wait(ctx))
	}
	fds := descriptors(t)
	h.Check = func() error {
		// The observer's, of processes that it has not looked at since.
		_, err := obs.Observe(context.Background())
		found, lerr := invariants.Check(context.Background(), store, invariants.Options{})
		err = errors.Join(err, lerr, invariants.Err(found))
		if now := descriptors(t); now > fds {
			err = errors.Join(err, fmt.Errorf("%d descriptors, %d before", now, fds))
		}
		return err
	}
	return h
}

// descriptors counts those that lead to processes, sandboxes and sockets: what
// the runtime and other tests have open comes and goes.
func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	n := 0
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && (strings.Contains(target, "pidfd") || strings.Contains(target, "sandboxes/")) {
			n++
		}
	}
	return n
}

// Every way in which a sentry or gofer can fail to start ends in time, says
// why, leaves nothing, and keeps nobody from trying again.
func TestMisbehaviour(t *testing.T) {
	requireHost(t)
	for name, want := range map[string]string{
		stubDiesEarly:  "the sentry exited",
		stubNeverReady: "not created|not started after 2s",
		stubDiesReady:  "connect to control server|exited|closed the connection",
		stubDiesStart:  "closed the connection",
		stubSilent:     "not started after 2s|no answer in time",
		stubDrips:      "not started after 2s|no answer in time",
		stubGarbage:    "read answer",
		stubHuge:       "longer than|invalid character",
		stubRefuses:    "no  [31msuch file",
		stubNoGofer:    "the gofer reported: gofer: no reason",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := stubOptions(t)
			if strings.Contains(want, "2s") {
				opts.BootTimeout = 2 * time.Second // nothing else ends these
			}
			h := realHost(t, opts)
			for range 2 {
				err := h.Create(t.Context(), h.Entry(name, "a"), nil, "")
				if err == nil {
					t.Fatal("it was created")
				}
				if !oneOf(err.Error(), want) || strings.ContainsAny(err.Error(), "\x1b") {
					t.Errorf("error %q, expected %q", err, want)
				}
			}
			s, err := h.Observe(t.Context())
			must(t, err)
			if r := s.Sandboxes[0].Record; r.Phase != actual.PhaseStopped || r.Attempt != 2 || r.App().Failures != 2 || r.App().LastExit.Reason != "CreateFailed" {
				t.Errorf("%+v %+v", r, r.App().LastExit)
			}
			must(t, h.Forget(t.Context(), name))
		})
	}
}

func oneOf(s, patterns string) bool {
	for p := range strings.SplitSeq(patterns, "|") {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// One that takes no notice of its stop signal is killed after the grace period
// and not before; one that does leaves its exit code.
func TestStubborn(t *testing.T) {
	requireHost(t)
	h := realHost(t, stubOptions(t))
	for name, c := range map[string]struct {
		known bool
		least time.Duration
	}{stubGood: {known: true}, stubStubborn: {least: 300 * time.Millisecond}} {
		must(t, h.Create(t.Context(), h.Entry(name, "a"), nil, ""))
		began := time.Now()
		must(t, h.Destroy(t.Context(), name, actual.Ending{Reason: "Test", StopSignal: "SIGTERM", Grace: max(c.least, time.Minute*time.Duration(b2i(c.known)))}))
		if took := time.Since(began); took < c.least {
			t.Errorf("%s: killed after %s", name, took)
		}
		s, err := h.Observe(t.Context())
		must(t, err)
		for i := range s.Sandboxes {
			if r := s.Sandboxes[i].Record; r.Name == name && r.App().LastExit.Known != c.known {
				t.Errorf("%s: %+v", name, r.App().LastExit)
			}
		}
		must(t, h.Forget(t.Context(), name))
	}
	must(t, h.Check())
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The end of the daemon is no reason to kill the application in its
// grace period: the stop stays on record, for the next daemon.
func TestStopInterrupted(t *testing.T) {
	requireHost(t)
	h := realHost(t, stubOptions(t))
	must(t, h.Create(t.Context(), h.Entry(stubStubborn, "a"), nil, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	end := actual.Ending{Reason: "Test", StopSignal: "SIGTERM", Grace: time.Hour}
	if err := h.Destroy(ctx, stubStubborn, end); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	s, err := h.Observe(t.Context())
	must(t, err)
	if o := s.Sandboxes[0]; o.Sentry != process.Alive || o.Gofer != process.Alive || o.Record.Phase != actual.PhaseStopping || o.Record.Ending.Reason != "Test" {
		t.Errorf("%+v %+v", o, o.Record)
	}
	end.Grace = 0
	must(t, h.Destroy(t.Context(), stubStubborn, end))
	must(t, h.Forget(t.Context(), stubStubborn))
	must(t, h.Check())
}

// Nothing of another boot lives, and its cgroups may have been of a layout that
// this one does not have.
func TestAnotherBoot(t *testing.T) {
	requireHost(t)
	h := realHost(t, stubOptions(t))
	must(t, h.Create(t.Context(), h.Entry(stubGood, "a"), nil, ""))
	must(t, h.Destroy(t.Context(), stubGood, actual.Ending{Reason: "Test"}))
	s, err := h.Observe(t.Context())
	must(t, err)
	rec := s.Sandboxes[0].Record.Clone()
	rec.Phase, rec.BootID, rec.Cgroups = actual.PhaseRunning, "another", []string{"/sys/fs/cgroup/none/sandboxctl/" + stubGood}
	rec.Sentry = &process.Identity{PID: 4242, Inode: 1, StartTime: 1, BootID: "another"}
	// The state directory is where the bad entry is not.
	store, err := actual.OpenStore(filepath.Dir(h.Bad(stubGood).Sandbox.Spec.Root.Dir))
	must(t, err)
	must(t, errors.Join(store.Put(rec), store.Close()))
	must(t, h.Destroy(t.Context(), stubGood, actual.Ending{Reason: "HostRebooted"}))
	must(t, h.Create(t.Context(), h.Entry(stubGood, "a"), nil, ""))
	must(t, h.Destroy(t.Context(), stubGood, actual.Ending{Reason: "Test"}))
	must(t, h.Forget(t.Context(), stubGood))
	must(t, h.Check())
}
