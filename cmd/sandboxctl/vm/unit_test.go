// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// settleDeadline bounds a wait for sandboxes. A start takes 9 s here on an idle
// machine.
const settleDeadline = 8 * time.Minute

// testUnit drives examples/systemd through the life of a host: start, stop,
// restart, kill -9, upgrade, reload, reboot. Sandboxes go on with the processes
// that they had until the host goes down; then all of them come back, but for the
// job that had completed.
func testUnit(t *testing.T, m *machine) {
	m.run(`set -e
cd /src/examples
install -D -m 644 systemd/sandboxctl.service /etc/systemd/system/sandboxctl.service
install -D -m 644 policy.yaml /etc/sandboxctl/policy.yaml
mkdir -p /srv/sandboxctl/runs
systemctl enable --now sandboxctl`)
	for _, s := range []struct{ name, command, policy string }{
		{"service", "exec sleep 1000000", "Always"},
		// Shutting down ends it with exit code 0, which is not its own will.
		{"polite", `trap "exit 0" TERM; while :; do sleep 1; done`, "OnFailure"},
		{"job", "true", "OnFailure"},
	} {
		m.apply(s.name, s.command, s.policy)
	}
	m.waitFor("service", "Running")
	m.waitFor("polite", "Running")
	m.waitFor("job", "Completed")

	// What must be the same as long as the host runs.
	before := m.sandboxes()
	same := func(after string) {
		t.Helper()
		m.until(after, func() error {
			// The daemon has looked at everything.
			if out, err := m.try("systemctl is-active sandboxctl && sandboxctl plan", commandDeadline); err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			return nil
		})
		for name, s := range m.sandboxes() {
			if s != before[name] {
				t.Fatalf("%s\nafter %s: %s is %+v, was %+v", m.explain(), after, name, s, before[name])
			}
		}
		m.limits("service", before["service"])
		m.clean(after)
	}
	same("start")
	if out := m.run("uname -r; sandboxctl doctor"); strings.HasPrefix(out, "6.1.") && !strings.Contains(out, "by its start time only") {
		t.Errorf("before Linux 6.9 doctor says:\n%s", out)
	}
	m.run("systemctl stop sandboxctl")
	for name, s := range m.sandboxes() {
		if s != before[name] {
			t.Fatalf("after stop: %s is %+v, was %+v", name, s, before[name])
		}
	}
	m.run("systemctl start sandboxctl")
	same("stop and start")
	m.run("systemctl restart sandboxctl")
	same("restart")
	// More often than systemd's own limit for one that keeps failing.
	m.run(`for i in 1 2 3 4 5 6; do
  pid=$(systemctl show -P MainPID sandboxctl) && systemctl kill -s KILL --kill-whom=main sandboxctl
  until new=$(systemctl show -P MainPID sandboxctl) && [ "$new" != 0 ] && [ "$new" != "$pid" ]; do sleep 0.1; done
done`)
	same("kill -9")
	// systemd sets the cgroups of all units anew, ours are none of them.
	m.run("systemctl daemon-reload")
	same("daemon-reload")
	m.run(`set -e
cd /usr/local/bin
for f in sandboxctl sandboxctl-gofer sandboxctl-image sandboxctl-sentry; do cp $f .$f.new; printf upgraded >>.$f.new; mv .$f.new $f; done
systemctl restart sandboxctl
tail -c 8 /proc/$(systemctl show -P MainPID sandboxctl)/exe | grep -q upgraded`)
	same("upgrade")
	// A unit without KillMode=process: systemd ends what is in the unit's cgroup, and
	// sandboxes are in their own.
	m.run(`set -e
unit=/etc/systemd/system/sandboxctl.service
sed -i /KillMode=/d $unit
systemctl daemon-reload
systemctl restart sandboxctl
[ "$(systemctl show -P KillMode sandboxctl)" = control-group ]
install -m 644 /src/examples/systemd/sandboxctl.service $unit
systemctl daemon-reload`)
	same("KillMode=control-group")

	began := time.Now()
	m.reboot()
	t.Logf("the reboot took %s", time.Since(began).Round(time.Second))
	m.waitFor("service", "Running")
	m.waitFor("polite", "Running")
	after := m.sandboxes()
	for _, name := range []string{"service", "polite"} {
		a, b := after[name], before[name]
		if a.LastTermination.Reason != "HostRebooted" || a.UID != b.UID || a.RestartCount != b.RestartCount+1 || a.Failures != 0 {
			t.Errorf("%s\nafter the reboot %s is %+v, was %+v", m.explain(), name, a, b)
		}
	}
	if after["job"].Phase != "Completed" || after["job"].RestartCount != 0 {
		t.Errorf("after the reboot the job is %+v", after["job"])
	}
	for name, want := range map[string]int{"service": 2, "polite": 2, "job": 1} {
		if n := m.starts(name); n != want {
			t.Errorf("%s was started %d times, expected %d", name, n, want)
		}
	}
	m.clean("reboot")
	m.limits("service", after["service"])
	m.outOfMemory("service")
	m.runWithin("sandboxctl delete service polite job && { sandboxctl approve || :; } && sandboxctl wait service polite job --for=delete --timeout 4m", settleDeadline)
	m.clean("delete")
}

// apply applies the manifest of a sandbox that says on a volume that it was
// started, and then does something.
func (m *machine) apply(name, command, restartPolicy string) {
	m.t.Helper()
	m.run("sandboxctl apply -f - <<'EOF'\n" + manifest(name, "1", command, restartPolicy) + "EOF")
}

func manifest(name, variant, command, restartPolicy string) string {
	return fmt.Sprintf(`apiVersion: sandboxctl.dev/v1alpha1
kind: Sandbox
metadata: {name: %s}
spec:
  root: {host: {}}
  command: [sh, -c, 'echo started %[2]s >>/runs/%[1]s; %[3]s']
  volumes: [{name: runs, mountPath: /runs, hostPath: /srv/sandboxctl/runs}]
  restartPolicy: %[4]s
  terminationGracePeriod: 0s
  resources: {cpu: 900m, memory: 256Mi, pids: 300}
`, name, variant, command, restartPolicy)
}

// starts is how often the application of a sandbox was started.
func (m *machine) starts(name string) int {
	m.t.Helper()
	return strings.Count(m.run("cat /srv/sandboxctl/runs/"+name), "started")
}

// sandbox is what `get -o json` says of one.
type sandbox struct {
	UID          string `json:"uid"`
	Phase        string `json:"phase"`
	SentryPID    int    `json:"sentryPID"`
	GoferPID     int    `json:"goferPID"`
	RestartCount int    `json:"restartCount"`
	Failures     int    `json:"failures"`
	StartedAt    string `json:"startedAt"`

	LastTermination termination `json:"lastTermination"`
}

type termination struct {
	Reason string `json:"reason"`
}

func (m *machine) sandboxes() map[string]sandbox {
	m.t.Helper()
	got, err := m.trySandboxes()
	must(m.t, err)
	return got
}

func (m *machine) trySandboxes() (map[string]sandbox, error) {
	// Warnings are on standard error.
	out, err := m.try("sandboxctl get -o json 2>/dev/null", commandDeadline)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   sandbox
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	got := map[string]sandbox{}
	for _, s := range list.Items {
		got[s.Metadata.Name] = s.Status
	}
	return got, nil
}

// waitFor waits until a sandbox is in a phase.
func (m *machine) waitFor(name, phase string) {
	m.t.Helper()
	m.until(name+" is "+phase, func() error {
		if s := m.sandboxes()[name]; s.Phase != phase {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
}

// until waits for an error to go away. Each look takes the machine long enough.
func (m *machine) until(what string, look func() error) {
	m.t.Helper()
	deadline := time.Now().Add(settleDeadline)
	for {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s\n%s: not within %s: %v", m.explain(), what, settleDeadline, err)
		}
	}
}

var noLeftovers = regexp.MustCompile(`(?m)^OK +leftovers `)

// clean waits until doctor finds nothing on the host that should not be.
func (m *machine) clean(after string) {
	m.t.Helper()
	m.until("doctor is content after "+after, func() error {
		out, err := m.try("sandboxctl doctor", commandDeadline)
		if err == nil && !noLeftovers.MatchString(out) {
			err = errors.New(out)
		}
		return err
	})
}

// limits checks that the limits of a sandbox are those of its cgroup, and that
// both processes are in it and in no unit of systemd's.
func (m *machine) limits(name string, s sandbox) {
	m.t.Helper()
	out := m.run(fmt.Sprintf(`set -e
test "$(cat /proc/%[1]d/cgroup)" = "$(cat /proc/%[2]d/cgroup)"
cd /sys/fs/cgroup$(cut -d: -f3 /proc/%[1]d/cgroup)
pwd; cat cpu.max memory.max`, s.SentryPID, s.GoferPID))
	if !strings.HasPrefix(out, "/sys/fs/cgroup/sandboxctl/") || !strings.HasSuffix(out, "\n90000 100000\n268435456") {
		m.t.Errorf("limits of %s: %s", name, out)
	}
}

// outOfMemory has a sandbox use more memory than its limit: it is killed, says
// so, and is started again.
func (m *machine) outOfMemory(name string) {
	m.t.Helper()
	before := m.sandboxes()[name]
	m.run("sandboxctl exec " + name + ` -- perl -e '$x = "a" x 600_000_000; sleep 9' || :`)
	m.until(name+" runs again", func() error {
		s := m.sandboxes()[name]
		if s.Phase != "Running" || s.RestartCount != before.RestartCount+1 || s.LastTermination.Reason != "OOMKilled" {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
}
