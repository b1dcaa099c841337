// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/reconcile/reconciletest"
)

// hostsNetwork is the network namespace of the test that runs another one in its own.
const hostsNetwork = "SANDBOXCTL_TEST_HOSTS_NETWORK"

// A link that can't be made ends the boot of the sentry at once, however long that would take:
// the next try, or a person who waits for the message, would wait for nothing.
func TestAttachEndsBoot(t *testing.T) {
	requireHost(t)
	const self = "/proc/self/ns/net"
	own, err := os.Readlink(self)
	must(t, err)
	switch os.Getenv(hostsNetwork) {
	case "":
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestAttachEndsBoot$", "-test.v")
		cmd.Env = append(os.Environ(), hostsNetwork+"="+own)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	case own:
		t.Fatal("this is the network of the host")
	}
	// So that the setting has to be changed, which is to be written down before.
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o600))
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	must(t, os.WriteFile(filepath.Join(store.Path(), bridge.ForwardingFile), []byte("half"), 0o600))
	opts := stubOptions(t)
	opts.BootTimeout = time.Minute
	opts.Networks, err = bridge.New(store, time.Minute, slog.New(slog.DiscardHandler))
	must(t, err)
	h := realHostOn(t, opts, store)
	began := time.Now()
	err = h.Create(t.Context(), reconciletest.Entry(stubNeverReady, "sleep", func(s *desired.Spec) {
		s.Network = networks.Network{Mode: networks.Bridge}
	}), nil, "")
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), bridge.ForwardingFile) || took > opts.BootTimeout/2 {
		t.Errorf("it ended after %s with %v", took, err)
	}
	must(t, h.Check())
	must(t, h.Forget(t.Context(), stubNeverReady))
}
