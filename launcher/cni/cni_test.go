// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/proc/proctest"
)

// fake is a plugin that writes down how it was called and does what a file says.
const fake = `#!/bin/sh
me=${0##*/}
cd ${0%/*}/..
echo $CNI_COMMAND $me >> calls
[ $CNI_COMMAND != ADD ] || env > env.$me
ls -l /proc/$$/fd > fds.$me
cat > stdin.$me.$CNI_COMMAND
[ ! -e do.$me.$CNI_COMMAND ] || . ./do.$me.$CNI_COMMAND
[ $CNI_COMMAND = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.67.0.2/24"}, {"address": "fd67::2/64"}], "dns": {"nameservers": ["10.67.0.1"], "domain": "a.example", "search": ["b.example", "c.example"], "options": ["ndots:2"]}}'
`

// host is a directory with a network, "lab", of two plugins, "make" and "ports".
type host struct {
	*testing.T
	dir    string
	policy *hostpolicy.CNIPolicy
	rec    *actual.Record
}

// newHost gives plugins time for a machine that has other work; who waits for its end sets less.
func newHost(t *testing.T) *host {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	h := &host{T: t, dir: t.TempDir()}
	h.policy = &hostpolicy.CNIPolicy{ConfigDir: h.path("net.d"), PluginDirs: []string{h.path("none"), h.path("plugins")}, Timeout: new(scalar.Duration(20 * time.Second))}
	h.check(errors.Join(os.Mkdir(h.path("net.d"), 0o755), os.Mkdir(h.path("plugins"), 0o755)))
	for _, name := range []string{"make", "addresses", "ports"} {
		h.check(proctest.WriteProgram(h.path("plugins/"+name), []byte(fake), 0o755))
	}
	h.write("net.d/20-lab.conflist", `{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "make", "ipam": {"type": "addresses"}}, {"type": "ports", "capabilities": {"portMappings": true, "other": true}}]}`)
	h.rec = &actual.Record{Name: "web", UID: actual.NewUID(), Attempt: 3, Phase: actual.PhaseRunning}
	t.Cleanup(func() { _ = netns.Unpin(netns.Dir + "/cni-" + h.rec.UID) })
	return h
}

func (h *host) path(p string) string { return filepath.Join(h.dir, p) }

func (h *host) check(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// write writes a file that can be used at once: a child of another test that had it open for
// writing would make it a file that is being written.
func (h *host) write(p, text string) {
	h.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	h.check(os.WriteFile(h.path(p), []byte(text), 0o644))
}

func (h *host) read(p string) string {
	h.Helper()
	b, err := os.ReadFile(h.path(p))
	h.check(err)
	return string(b)
}

// calls are those since the last time.
func (h *host) calls() string {
	h.Helper()
	b, err := os.ReadFile(h.path("calls"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	h.check(errors.Join(err, os.Remove(h.path("calls"))))
	return strings.Join(strings.Split(strings.TrimSpace(string(b)), "\n"), ", ")
}

// add is Intend and Add.
func (h *host) add(ports ...networks.Port) ([]actual.CNI, error) {
	h.Helper()
	recorded, err := h.addAll([]string{"lab"}, ports...)
	if err != nil {
		return nil, err
	}
	return recorded[len(recorded)-1], nil
}

// addAll is that of several networks. It returns all that is on record, one after the other.
func (h *host) addAll(names []string, ports ...networks.Port) (recorded [][]actual.CNI, err error) {
	h.Helper()
	c, err := Intend(h.rec, &networks.Network{Mode: networks.CNI, CNI: names, Ports: ports}, h.policy)
	if err != nil {
		return nil, err
	}
	recorded = [][]actual.CNI{c}
	err = Add(h.Context(), c, h.policy, func(c []actual.CNI) error {
		recorded = append(recorded, c)
		return nil
	})
	return recorded, err
}

func (h *host) pinned() bool {
	n, err := netns.Open(netns.Dir + "/cni-" + h.rec.UID)
	if err == nil {
		n.Close()
	}
	return err == nil
}

// Each plugin is told what the specification says, and nothing else.
func TestAdd(t *testing.T) {
	h := newHost(t)
	t.Setenv("SECRET", "of the daemon")
	h.write("secret", "")
	f, err := os.Open(h.path("secret"))
	h.check(err)
	defer f.Close()
	c, err := h.add(networks.Port{ContainerPort: 80, HostPort: 8080, Protocol: "TCP", HostIP: "127.0.0.1"}, networks.Port{Range: "100-101", HostPort: 200, Protocol: "UDP"}, networks.Port{ContainerPort: 81})
	h.check(err)
	if got := h.calls(); got != "ADD make, ADD ports, CHECK make, CHECK ports" || !h.pinned() || c[0].CheckFails != "" {
		t.Errorf("called %s, namespace %v", got, h.pinned())
	}
	if got := h.read("stdin.make.ADD"); got != `{"cniVersion":"1.0.0","ipam":{"type":"addresses"},"name":"lab","type":"make"}` {
		t.Errorf("the first got %s", got)
	}
	got := h.read("stdin.ports.ADD")
	for _, want := range []string{
		`"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"},{"hostPort":200,"containerPort":100,"protocol":"udp"},{"hostPort":201,"containerPort":101,"protocol":"udp"}]}`,
		`"prevResult":{"cniVersion":"1.0.0","dns":{`, `"address":"10.67.0.2/24"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the second got %s, expected %s", got, want)
		}
	}
	env := strings.Split(strings.TrimSpace(h.read("env.make")), "\n")
	env = slices.DeleteFunc(env, func(l string) bool {
		return strings.HasPrefix(l, "PWD=") || strings.HasPrefix(l, "OLDPWD=") || strings.HasPrefix(l, "_=") || strings.HasPrefix(l, "SHLVL=")
	})
	slices.Sort(env)
	want := []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + h.rec.UID + "-3", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/cni-" + h.rec.UID, "CNI_PATH=" + h.path("plugins"), "PATH=" + os.Getenv("PATH")}
	if !slices.Equal(env, want) {
		t.Errorf("environment %q, expected %q", env, want)
	}
	// Beside its streams it has the namespace, for the lock, and nothing of this program's.
	if got := h.read("fds.make"); !strings.Contains(got, " 3 -> net:[") || strings.Contains(got, "/secret") {
		t.Errorf("descriptors %s", got)
	}
	var addrs []string
	for _, a := range Addresses(&c[0]) {
		addrs = append(addrs, a.String())
	}
	if !slices.Equal(addrs, []string{"10.67.0.2", "fd67::2"}) || Addresses(&actual.CNI{}) != nil {
		t.Errorf("addresses %v", addrs)
	}
	if got, want := ResolvConf(c), "nameserver 10.67.0.1\ndomain a.example\nsearch b.example c.example\noptions ndots:2\n"; got != want {
		t.Errorf("resolv.conf %q, expected %q", got, want)
	}

	// CHECK and DEL get back what ADD has said, the last plugin first.
	h.check(Check(t.Context(), c, h.policy))
	if got := h.calls(); got != "CHECK make, CHECK ports" || !strings.Contains(h.read("stdin.make.CHECK"), `"prevResult":{`) {
		t.Errorf("called %s with %s", got, h.read("stdin.make.CHECK"))
	}
	h.write("do.ports.DEL", `echo '{"code": 7, "msg": "not now", "details": "ask later"}'; exit 1`)
	if err := Delete(t.Context(), c, h.policy); err == nil || !strings.Contains(err.Error(), "DEL of the network lab of CNI: plugin ports: not now; ask later") || !h.pinned() {
		t.Errorf("%v, namespace %v", err, h.pinned())
	}
	// The other one has given back what it has.
	if got := h.calls(); got != "DEL ports, DEL make" {
		t.Errorf("called %s", got)
	}
	h.check(os.Remove(h.path("do.ports.DEL")))
	for range 2 { // also when all is gone
		h.check(Delete(t.Context(), c, h.policy))
		if got := h.calls(); got != "DEL ports, DEL make" || h.pinned() || !strings.Contains(h.read("stdin.make.DEL"), `"prevResult":{`) {
			t.Errorf("called %s with %s, namespace %v", got, h.read("stdin.make.DEL"), h.pinned())
		}
	}
	// The configuration of then counts, also when there is none any more.
	h.check(os.Remove(h.path("net.d/20-lab.conflist")))
	h.check(Delete(t.Context(), c, h.policy))
}

// Several networks are made one after the other, each on record before the next one is begun,
// and undone in the other order, all of them, also after a crash or an error between two.
func TestSeveral(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.check(proctest.WriteProgram(h.path("plugins/second"), []byte(fake), 0o755))
	h.write("net.d/30-side.conflist", `{"cniVersion": "1.0.0", "name": "side", "plugins": [{"type": "second"}]}`)
	port := networks.Port{ContainerPort: 80, HostPort: 8080, Protocol: "TCP"}
	both := []string{"side", "lab"}
	recorded, err := h.addAll(both, port)
	h.check(err)
	if got := h.calls(); got != "ADD second, CHECK second, ADD make, ADD ports, CHECK make, CHECK ports" {
		t.Errorf("called %s", got)
	}
	if len(recorded) != 3 {
		t.Fatalf("%d times on record", len(recorded))
	}
	for i, c := range recorded {
		for j, one := range c {
			if has := len(one.Result) > 0; has != (j < i) || one.Network != both[j] || one.Interface != "eth"+strconv.Itoa(j) || one.ContainerID != c[0].ContainerID || one.Netns != c[0].Netns {
				t.Errorf("on record after %d networks: %+v", i, one)
			}
		}
	}
	if env := h.read("env.make"); !strings.Contains(env, "CNI_IFNAME=eth1\n") || !strings.Contains(env, "CNI_CONTAINERID="+h.rec.UID+"-3\n") {
		t.Errorf("environment %s", env)
	}
	// The first that can publish ports does, and nobody else.
	if !strings.Contains(h.read("stdin.ports.ADD"), `"portMappings":[{"hostPort":8080`) || strings.Contains(h.read("stdin.second.ADD"), "portMappings") {
		t.Errorf("told %s and %s", h.read("stdin.second.ADD"), h.read("stdin.ports.ADD"))
	}
	made := recorded[2]
	if got, want := ResolvConf(made), "nameserver 10.67.0.1\ndomain a.example\nsearch b.example c.example\noptions ndots:2\n"; got != want {
		t.Errorf("resolv.conf %q, expected %q", got, want)
	}
	// One that found fault with what it had just made is not asked again; the others are.
	unsure := slices.Clone(made)
	unsure[0].CheckFails = "no rules"
	h.check(Check(t.Context(), unsure, h.policy))
	if got := h.calls(); got != "CHECK make, CHECK ports" {
		t.Errorf("called %s", got)
	}
	const undone = "DEL ports, DEL make, DEL second"
	h.write("do.ports.DEL", "exit 1")
	if err := Delete(t.Context(), made, h.policy); err == nil || !strings.Contains(err.Error(), "DEL of the network lab of CNI: plugin ports") || !h.pinned() {
		t.Errorf("%v, namespace %v", err, h.pinned())
	}
	if got := h.calls(); got != undone {
		t.Errorf("called %s", got)
	}
	h.check(os.Remove(h.path("do.ports.DEL")))
	// Whatever is on record by then.
	for _, c := range recorded {
		h.check(Delete(t.Context(), c, h.policy))
		if got := h.calls(); got != undone || h.pinned() {
			t.Errorf("called %s, namespace %v", got, h.pinned())
		}
	}
	// The second one can't be made.
	h.write("do.make.ADD", `echo '{"code": 11, "msg": "no addresses"}'; exit 1`)
	recorded, err = h.addAll(both, port)
	if err == nil || !strings.Contains(err.Error(), "ADD of the network lab of CNI: plugin make: no addresses") || len(recorded) != 2 {
		t.Errorf("%v, %d times on record", err, len(recorded))
	}
	h.calls()
	h.check(Delete(t.Context(), recorded[len(recorded)-1], h.policy))
	if got := h.calls(); got != undone || h.pinned() || !strings.Contains(h.read("stdin.second.DEL"), "prevResult") {
		t.Errorf("called %s, namespace %v", got, h.pinned())
	}
	if _, err := h.addAll([]string{"side"}, port); err == nil || !operation.PreconditionFailed(err) || !strings.Contains(err.Error(), "the network side of CNI publishes no ports") {
		t.Error(err)
	}
}

// ending is a context that ends when something has happened, and interrupts nobody.
type ending struct {
	context.Context
	over func() bool
}

func (e ending) Err() error {
	if e.over() {
		return context.Canceled
	}
	return nil
}

// Who gives up after one network of several is told so: the others are undone later.
func TestDeleteGivesUp(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.check(proctest.WriteProgram(h.path("plugins/second"), []byte(fake), 0o755))
	h.write("net.d/30-side.conflist", `{"cniVersion": "1.0.0", "name": "side", "plugins": [{"type": "second"}]}`)
	recorded, err := h.addAll([]string{"side", "lab"})
	h.check(err)
	made := recorded[len(recorded)-1]
	h.calls()
	ctx := ending{context.Background(), func() bool { return strings.Contains(h.read("calls"), "DEL make") }}
	if err := Delete(ctx, made, h.policy); !errors.Is(err, context.Canceled) || !h.pinned() {
		t.Errorf("%v, namespace %v", err, h.pinned())
	}
	if got := h.calls(); got != "DEL ports, DEL make" {
		t.Errorf("called %s", got)
	}
	h.check(Delete(t.Context(), made, h.policy))
	if got := h.calls(); got != "DEL ports, DEL make, DEL second" || h.pinned() {
		t.Errorf("called %s, namespace %v", got, h.pinned())
	}
}

// A CHECK that finds fault with what was just made keeps nobody from a start.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("do.make.CHECK", `echo '{"code": 1, "msg": "no rules"}'; exit 1`)
	c, err := h.add()
	h.check(err)
	if c[0].CheckFails != "CHECK of the network lab of CNI: plugin make: no rules" {
		t.Errorf("%q", c[0].CheckFails)
	}
}

// What a plugin does wrong is told, and holds nobody.
func TestAddFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ do, want string }{
		"error":          {`echo '{"code": 11, "msg": "no addresses"}'; exit 1`, "ADD of the network lab of CNI: plugin make: no addresses"},
		"error as text":  {"echo no route >&2; echo no result; exit 3", `plugin make: exit status 3; it wrote: "no result"; it wrote: "no route"`},
		"hangs":          {"sleep 1000 & sleep 1000", "plugin make: killed after 1s, which is network.cni.timeout of the host policy"},
		"no result":      {"echo certainly; exit 0", "failed to unmarshal raw result"},
		"nothing":        {"exit 0", "unexpected end of JSON input"},
		"no end":         {"exec cat /dev/zero", "plugin make: killed: expected at most 65536 bytes of output"},
		"other version":  {`echo '{"cniVersion": "9.0.0"}'; exit 0`, "9.0.0"},
		"null":           {`echo null; exit 0`, ""},
		"no address":     {`echo '{"cniVersion": "1.0.0", "ips": [{"address": "x"}]}'; exit 0`, "invalid CIDR address"},
		"a line of DNS":  {`printf '{"cniVersion": "1.0.0", "dns": {"search": ["a\\nnameserver 1.2.3.4"]}}'; exit 0`, "expected words in dns of the result of its plugins"},
		"a name for DNS": {`printf '{"cniVersion": "1.0.0", "dns": {"nameservers": ["dns.example"]}}'; exit 0`, "expected addresses as dns.nameservers"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write("do.make.ADD", c.do)
			if name == "hangs" {
				h.policy.Timeout = new(scalar.Duration(time.Second))
			}
			if strings.Contains(name, "DNS") {
				h.write("do.ports.ADD", c.do)
			}
			begin := time.Now()
			made, err := h.add()
			if c.want == "" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v, expected %s", made, err, c.want)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// Only what nobody but root can change is read or run.
func TestTrusted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(h *host) error
		want   string
	}{
		"plugin that others write": {func(h *host) error { return os.Chmod(h.path("plugins/make"), 0o777) }, "plugins/make can be written by others"},
		"plugin of somebody":       {func(h *host) error { return os.Chown(h.path("plugins/ports"), 65534, 0) }, "plugins/ports belongs to user 65534"},
		"of addresses":             {func(h *host) error { return os.Chown(h.path("plugins/addresses"), 65534, 0) }, "plugins/addresses belongs to user 65534"},
		"directory of plugins":     {func(h *host) error { return os.Chmod(h.path("plugins"), 0o777) }, "plugin make of CNI is not there; looked for in: none; not used: "},
		"configuration":            {func(h *host) error { return os.Chmod(h.path("net.d/20-lab.conflist"), 0o666) }, "there are: none; not used: "},
		"its directory":            {func(h *host) error { return os.Chown(h.path("net.d"), 65534, 0) }, "net.d belongs to user 65534"},
		"no directory":             {func(h *host) error { return os.Rename(h.path("net.d"), h.path("away")) }, "look for networks of CNI: open "},
		"no plugin":                {func(h *host) error { return os.Remove(h.path("plugins/ports")) }, "plugin ports of CNI is not there; looked for in: "},
		"no program":               {func(h *host) error { return os.Chmod(h.path("plugins/ports"), 0o644) }, "plugins/ports: expected an executable file"},
		"a directory": {func(h *host) error {
			return errors.Join(os.Remove(h.path("plugins/ports")), os.Mkdir(h.path("plugins/ports"), 0o755))
		}, "plugins/ports: expected an executable file"},
		"a way out":     {func(h *host) error { return h.replace(`"ports"`, `"../ports"`) }, `expected the name of a plugin as its type, got "../ports"`},
		"no type":       {func(h *host) error { return h.replace(`"type": "ports"`, `"kind": "ports"`) }, "missing 'type'"},
		"no list":       {func(h *host) error { return h.replace(`"plugins"`, `"programs"`) }, "expected 1 to 16 plugins in its list, got 0"},
		"too large":     {func(h *host) error { return h.replace(`{"cniVersion"`, strings.Repeat(" ", maxConfig)+`{"cniVersion"`) }, "expected at most 65536 bytes"},
		"no JSON":       {func(h *host) error { return h.replace(`{"cniVersion"`, `"cniVersion"`) }, "20-lab.conflist: "},
		"another name":  {func(h *host) error { return h.replace(`"lab"`, `"shop"`) }, `configures the network "lab" of CNI; there are: shop`},
		"no capability": {func(h *host) error { return h.replace(`"portMappings": true`, `"portMappings": false`) }, "the network lab of CNI publishes no ports: no plugin in "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.check(c.change(h))
			_, err := h.add(networks.Port{ContainerPort: 80, HostPort: 8080, Protocol: "TCP"})
			if err == nil || !strings.Contains(err.Error(), c.want) || !operation.PreconditionFailed(err) {
				t.Errorf("%v, expected %s", err, c.want)
			}
			if got := h.calls(); got != "" || h.pinned() {
				t.Errorf("called %s, namespace %v", got, h.pinned())
			}
			if err := Look(h.policy, "lab"); (err == nil) != (name == "no capability") {
				t.Errorf("a look says %v", err)
			}
		})
	}
}

func (h *host) replace(a, b string) error {
	const file = "net.d/20-lab.conflist"
	text := strings.Replace(h.read(file), a, b, 1)
	return os.WriteFile(h.path(file), []byte(text), 0o644)
}

// The first file with the name counts; one of another kind, or that can't be read, does not
// hide it. Older files have one plugin.
func TestFind(t *testing.T) {
	h := newHost(t)
	h.write("net.d/00-broken.conflist", "{")
	h.write("net.d/05-lab.txt", `{"name": "lab"}`)
	h.write("net.d/10-old.conf", `{"cniVersion": "0.3.1", "name": "old", "type": "make", "bridge": "b"}`)
	h.write("net.d/30-lab.conflist", `{"name": "lab", "plugins": [{"type": "nosuch"}]}`)
	h.check(os.Mkdir(h.path("net.d/40.conflist"), 0o755))
	n, err := find(h.policy, "lab")
	h.check(err)
	if n.file != h.path("net.d/20-lab.conflist") || !n.can(portMappings) || n.can("bandwidth") {
		t.Errorf("%+v", n)
	}
	n, err = find(h.policy, "old")
	h.check(err)
	if len(n.Plugins) != 1 || n.Plugins[0].Network.Type != "make" || n.CNIVersion != "0.3.1" || !strings.Contains(string(n.Plugins[0].Bytes), `"bridge":"b"`) {
		t.Errorf("%+v", n)
	}
	// It knows no CHECK, and takes back no result.
	c, err := Intend(h.rec, &networks.Network{Mode: networks.CNI, CNI: networks.CNINames{"old"}}, h.policy)
	h.check(err)
	c[0].Result = []byte(`{"cniVersion":"0.3.1"}`)
	h.check(errors.Join(Check(t.Context(), c, h.policy), Delete(t.Context(), c, h.policy)))
	if got := h.calls(); got != "DEL make" || strings.Contains(h.read("stdin.make.DEL"), "prevResult") {
		t.Errorf("called %s with %s", got, h.read("stdin.make.DEL"))
	}
}

// A plugin that outlives its daemon is waited for before the next one is started, but not
// longer than one may take: then it is something that a plugin has left behind.
func TestOrphan(t *testing.T) {
	h := newHost(t)
	c, err := h.add()
	h.check(err)
	hold := func() *os.File {
		f, err := lock(t.Context(), c[0].Netns, 0)
		h.check(err)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := hold()
	begin := time.Now()
	time.AfterFunc(300*time.Millisecond, func() { f.Close() })
	h.check(Check(t.Context(), c, h.policy))
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("it did not wait: %s", took)
	}
	defer hold().Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the daemon ends")
	time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
	if err := Check(ctx, c, h.policy); !errors.Is(err, why) {
		t.Errorf("%v, expected %v", err, why)
	}
	const patience = 5 * time.Second // a plugin of this test has it too
	h.policy.Timeout = new(scalar.Duration(patience))
	begin = time.Now()
	h.check(Delete(t.Context(), c, h.policy))
	if took := time.Since(begin); took < patience || h.pinned() {
		t.Errorf("after %s, namespace %v", took, h.pinned())
	}
}

// A crash between the two steps of Pin or of Unpin leaves a file where the namespace was.
// Plugins would take it for one and fail for ever, as bridge does before it gives addresses
// back: they are told that there is none.
func TestDeleteCutShort(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("do.make.DEL", "echo \"<$CNI_NETNS>\" >> namespaces; [ -z \"$CNI_NETNS\" ] || [ -L /proc/self/fd/3 ] || exit 1")
	c, err := h.add()
	h.check(err)
	h.check(unix.Unmount(c[0].Netns, unix.MNT_DETACH))
	if _, err := os.Lstat(c[0].Netns); err != nil || h.pinned() {
		t.Fatalf("expected a file without a namespace: %v", err)
	}
	for range 2 {
		h.check(Delete(t.Context(), c, h.policy))
		if _, err := os.Lstat(c[0].Netns); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is left: %v", err)
		}
	}
	if got := h.read("namespaces"); got != "<>\n<>\n" {
		t.Errorf("plugins were told of %q", got)
	}
}

// A program that a plugin leaves behind, with all descriptors that it had, keeps nobody from
// the next plugin.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("do.ports.ADD", "sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > left")
	begin := time.Now()
	c, err := h.add()
	h.check(err)
	pid, err := strconv.Atoi(strings.TrimSpace(h.read("left")))
	h.check(err)
	p, err := os.FindProcess(pid)
	h.check(err)
	defer func() { _ = p.Kill() }()
	if at, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", pid)); err != nil || !strings.HasPrefix(at, "net:[") {
		t.Fatalf("it has no namespace: %s %v", at, err)
	}
	h.check(errors.Join(Check(t.Context(), c, h.policy), Delete(t.Context(), c, h.policy)))
	if took := time.Since(begin); took >= h.policy.PluginTime() {
		t.Errorf("it took %s", took)
	}
}

// A daemon has what runs checked when it begins, and tells what is wrong with which run.
func TestChecker(t *testing.T) {
	h := newHost(t)
	c, err := h.add()
	h.check(err)
	store, err := actual.OpenStore(h.path("state"))
	h.check(err)
	defer store.Close()
	h.check(store.Lock())
	rec := actual.NextAttempt(nil, actual.Intent{Name: "web", UID: h.rec.UID, BootID: "b", Spec: []byte(`{}`), SpecHash: "h"}, time.Now())
	Put(rec, c)
	rec.Started(moment.Now())
	h.check(errors.Join(store.Claim("web"), store.Put(rec)))
	k := NewChecker(store, func() (*hostpolicy.Policy, error) {
		p := hostpolicy.Default()
		p.Network.CNI = *h.policy
		return p, nil
	}, slog.New(slog.DiscardHandler))
	h.check(k.Run(t.Context())) // nothing is wrong: it is over
	if len(k.Failed()) > 0 || len(k.Changes()) > 0 {
		t.Errorf("%+v", k.Failed())
	}
	h.write("do.ports.CHECK", `echo '{"code": 1, "msg": "no rules"}'; exit 1`)
	// Nothing follows from a CHECK that fails right after ADD too, as that of portmap 1.1.1.
	broken := slices.Clone(c)
	broken[0].CheckFails = "no rules"
	Put(rec, broken)
	h.check(errors.Join(store.Put(rec), k.Run(t.Context())))
	if len(k.Failed()) > 0 {
		t.Errorf("%+v", k.Failed())
	}
	Put(rec, c)
	h.check(store.Put(rec))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- k.Run(ctx) }()
	<-k.Changes()
	if f := k.Failed()["web"]; f.UID != rec.UID || f.Attempt != 1 || f.Message != "CHECK of the network lab of CNI: plugin ports: no rules" {
		t.Errorf("%+v", k.Failed())
	}
	cancel()
	h.check(<-over)
	h.check(Delete(t.Context(), c, h.policy))
}
