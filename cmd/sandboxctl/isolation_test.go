// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/netns"
)

// What a sandbox sees and can do inside, and what the kernel says of its
// processes outside, in every kind of sandbox there is. It is held against lists
// of what is allowed, in testdata/isolation: common.txt for all, and one a kind
// for what is particular to it. Everything that is not listed is a hole until
// somebody has looked at it. docs/internals/isolation.md says the same in words.

// updateIsolation writes the lists from what is seen. Whoever uses it answers
// for every line.
var updateIsolation = flag.Bool("update-isolation", false, "write the lists of what is allowed in a sandbox")

const (
	capsNone   = "0000000000000000"
	capsAll    = "all"
	capsReader = "0000000000000006" // DAC_OVERRIDE, DAC_READ_SEARCH
	capsWriter = "000000000000001f" // and CHOWN, FOWNER, FSETID
	capsDirect = "000000000008001f" // and SYS_PTRACE
	capsNet    = "0000000000081400" // NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE
	capsBoth   = "000000000008141f"
)

// kind is one kind of sandbox. Its capabilities are here and not only in the
// lists, so that no update lets them grow.
type kind struct {
	root, spec           string
	sentryUID            string
	sentryCaps, ownUser  string
	sentryBound          string
	goferUID, goferCaps  string
	sharedNet, container bool
}

func kinds(h *host, netnsName string) map[string]kind {
	volume := func(ro bool) string {
		return fmt.Sprintf("  volumes: [{name: v, mountPath: /mnt, hostPath: %s/NAME-volume, readOnly: %v}]\n", h.work, ro)
	}
	const memory, none = "  overlay: memory\n", "  overlay: none\n"
	const mapped = "  idMappings: {uids: [{containerID: 0, hostID: 100000, size: 10000}], gids: [{containerID: 0, hostID: 100000, size: 10000}]}\n"
	jailed := func(root, spec, goferCaps string) kind {
		return kind{root: root, spec: spec, sentryUID: "65534", sentryCaps: capsNone, sentryBound: capsAll, ownUser: "own", goferUID: "0", goferCaps: goferCaps}
	}
	onHost := func(root, spec, sentryCaps, goferCaps string) kind {
		return kind{root: root, spec: spec, sentryUID: "0", sentryCaps: sentryCaps, sentryBound: sentryCaps, ownUser: "host", goferUID: "0", goferCaps: goferCaps}
	}
	dir := "{dir: " + h.work + "/rootfs}"
	// One that writes to its root has one of its own.
	own := "{dir: " + h.work + "/NAME-root}"
	out := map[string]kind{
		"plain":      jailed(own, none, capsWriter),
		"overlay":    jailed(dir, memory, capsReader),
		"restored":   jailed(dir, memory, capsReader),
		"hostroot":   jailed("{host: {}}", "", capsReader),
		"bundle":     jailed("{bundle: "+h.work+"/bundle}", memory, capsReader),
		"readonly":   jailed(dir, memory+volume(true), capsReader),
		"volume":     jailed(dir, memory+volume(false), capsWriter),
		"disk":       jailed(dir, "  overlay: disk\n  overlaySize: 16Mi\n  volumes: [{name: t, mountPath: /mnt, emptyDir: {size: 1Mi}}]\n", capsReader),
		"tmpfs":      jailed(dir, memory+"  volumes: [{name: t, mountPath: /mnt, tmpfs: {size: 1Mi}}]\n", capsReader),
		"mapped":     jailed(dir, memory+mapped+volume(false), capsWriter),
		"user":       jailed(dir, memory+"  user: {uid: 1000, gid: 1001, groups: [1002]}\n  capabilities: {drop: [ALL]}\n", capsReader),
		"privileged": jailed(dir, memory+"  capabilities: {add: [SYS_ADMIN, SYS_PTRACE, NET_ADMIN, DAC_READ_SEARCH, SYS_MODULE, BPF]}\n", capsReader),
		"terminal":   jailed(dir, memory+"  terminal: true\n", capsReader),
		"netns":      jailed(dir, memory+"  network: {mode: netns, netns: "+netnsName+"}\n", capsReader),
		"direct":     onHost(dir, memory+"  fileAccess: direct\n"+volume(false), capsDirect, capsWriter),
		"hostnet":    onHost(dir, memory+"  network: {mode: host}\n", capsNet, capsReader),
		"directnet":  onHost(own, none+"  network: {mode: host}\n  fileAccess: direct\n", capsBoth, capsWriter),
		"container":  jailed(own, "", capsWriter),
	}
	for name, k := range out {
		k.spec, k.root = strings.ReplaceAll(k.spec, "NAME", name), strings.ReplaceAll(k.root, "NAME", name)
		k.sharedNet = strings.Contains(k.spec, "mode: host")
		k.container = name == "container"
		if name == "mapped" {
			k.goferUID = "100000"
		}
		out[name] = k
	}
	return out
}

// bait is what there is on the host for a sandbox to find.
type bait struct {
	Canary   string `json:"canary"`
	Abstract string `json:"abstract"`
	Port     int    `json:"port"`
	Tag      string `json:"tag"`
	Hold     bool   `json:"hold"`
}

func (h *host) bait(t *testing.T) bait {
	t.Helper()
	b := bait{Canary: filepath.Join(h.work, "canary"), Abstract: fmt.Sprintf("sandboxctl-probe-%d", os.Getpid()), Tag: "app", Hold: true}
	must(t, os.WriteFile(b.Canary, []byte("canary\n"), 0o644))
	unixL, err := net.Listen("unix", "@"+b.Abstract)
	must(t, err)
	t.Cleanup(func() { unixL.Close() })
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { tcp.Close() })
	b.Port = tcp.Addr().(*net.TCPAddr).Port
	return b
}

// trap fills a directory that is served to a sandbox with what leads out of it.
func (h *host) trap(t *testing.T, name, canary string) {
	t.Helper()
	dir := filepath.Join(h.work, name+"-volume")
	must(t, os.Mkdir(dir, 0o755))
	p := func(n string) string { return filepath.Join(dir, n) }
	must(t, os.WriteFile(p("inside"), []byte("inside\n"), 0o644))
	for n, target := range map[string]string{
		"absolute": canary, "relative": strings.Repeat("../", 20) + canary, "tree": "/", "procfd": "/proc/1/root" + canary,
	} {
		must(t, os.Symlink(target, p(n)))
	}
	must(t, unix.Mkfifo(p("fifo"), 0o666))
	for n, dev := range map[string][3]uint32{"null": {unix.S_IFCHR, 1, 3}, "mem": {unix.S_IFCHR, 1, 1}, "disk": {unix.S_IFBLK, 7, 0}} {
		must(t, unix.Mknod(p(n), dev[0]|0o666, int(unix.Mkdev(dev[1], dev[2]))))
	}
	l, err := net.Listen("unix", p("socket"))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, os.Chmod(p("socket"), 0o777))
	prog, err := os.ReadFile(filepath.Join(h.work, "rootfs", "bin", "probe"))
	must(t, err)
	must(t, os.WriteFile(p("setuid"), prog, 0o755))
	must(t, os.Chmod(p("setuid"), 0o755|os.ModeSetuid))
}

// newIsolation builds the probe that looks from inside.
func newIsolation(t *testing.T, h *host, name string, inner *netns.Namespace) *isolation {
	t.Helper()
	probe := filepath.Join(h.work, "rootfs", "bin", "probe")
	build := exec.Command("go", "build", "-trimpath", "-o", probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	w := &isolation{h: h, bait: h.bait(t), kinds: kinds(h, name), inner: inner, netns: name, allCaps: allCaps(t), facts: map[string][]string{}, goferNets: map[string]bool{}}
	var err error
	w.probeArgs, err = json.Marshal(w.bait)
	must(t, err)
	return w
}

func TestIsolation(t *testing.T) {
	requireHost(t)
	// Something the daemon inherits, that must go no further.
	marker, err := os.Create(filepath.Join(t.TempDir(), "inherited-by-the-daemon"))
	must(t, err)
	defer marker.Close()
	name := fmt.Sprintf("sbctl-%d-iso", os.Getpid())
	outer, inner := namedNetns(t, name+"-out"), namedNetns(t, name)
	wireUp(t, outer, inner, "/run/netns/"+name)
	w := newIsolation(t, daemonHost(t, marker), name, inner)
	h := w.h
	w.writeBundles(t)
	for name, k := range w.kinds {
		if strings.Contains(k.spec, "-volume") {
			h.trap(t, name, w.bait.Canary)
		}
		if strings.Contains(k.root, "-root") {
			must(t, os.CopyFS(filepath.Join(h.work, name+"-root"), os.DirFS(filepath.Join(h.work, "rootfs"))))
		}
	}
	for name, k := range w.kinds {
		if !k.container {
			h.dropRoot(name, k.root, k.spec+"  terminationGracePeriod: 0s\n"+w.command(name))
		}
	}
	w.startContainer(t)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range w.kinds {
			if !yield(n) {
				return
			}
		}
	}) {
		t.Run(name, func(t *testing.T) {
			w.look(t, name)
			if !*updateIsolation {
				w.compare(t, name)
			}
			w.laws(t, name)
			if t.Failed() && !w.kinds[name].container {
				// Whether it was started again, and why.
				said, _ := w.h.command("describe", name).CombinedOutput()
				t.Logf("%s", said)
			}
			w.precompiled(t, name)
		})
	}
	if n := len(w.goferNets); n != 2 {
		t.Errorf("gofers have %d network namespaces, expected those of the daemon and of the OCI runtime", n)
	}
	if *updateIsolation {
		w.update(t)
	}
}

// A sandbox whose sentry and gofer have waited for it has what one has that was started for
// it, and nothing else.
func TestIsolationWaited(t *testing.T) { isolationKept(t, "warm: 2", actual.WayWaiting, "") }

// Nor has one whose sentry had booted a kernel, but the files of the container beside it.
func TestIsolationWarm(t *testing.T) {
	isolationKept(t, "warm: 0\nwarmKernels: 2", actual.WayWarm, "  init: false\n")
}

func isolationKept(t *testing.T, keeps, way, spec string) {
	requireHost(t)
	name := fmt.Sprintf("sbctl-%d-%s", os.Getpid(), way)
	marker, err := os.Create(filepath.Join(t.TempDir(), "inherited-by-the-daemon"))
	must(t, err)
	defer marker.Close()
	w := newIsolation(t, daemonHost(t, marker), name, namedNetns(t, name))
	w.way = way
	h := w.h
	h.keeps(keeps)
	names := []string{"plain", "overlay", "user"}
	if way == actual.WayWaiting {
		t.Run("before", w.waiting)
		names = append(names, "terminal")
	}
	for _, name := range names {
		k := w.kinds[name]
		if k.root == "" {
			t.Fatalf("there is no kind %s", name)
		}
		t.Run(name, func(t *testing.T) {
			if strings.Contains(k.spec, "-volume") {
				h.trap(t, name, w.bait.Canary)
			}
			if strings.Contains(k.root, "-root") {
				must(t, os.CopyFS(filepath.Join(h.work, name+"-root"), os.DirFS(filepath.Join(h.work, "rootfs"))))
			}
			h.waiting()
			h.dropRoot(name, k.root, k.spec+spec+"  terminationGracePeriod: 0s\n"+w.command(name))
			rec := w.record(t, name)
			if rec.Start.Way != way {
				t.Fatalf("none was taken: %+v", rec.Start)
			}
			w.look(t, name)
			w.compare(t, name)
			w.laws(t, name)
			w.precompiled(t, name)
		})
	}
}

// allCaps formats all capabilities of this kernel as /proc/PID/status does.
func allCaps(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	must(t, err)
	last, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, err)
	return fmt.Sprintf("%016x", uint64(1)<<(last+1)-1)
}

// isolation is one run of the test.
type isolation struct {
	h         *host
	bait      bait
	probeArgs []byte
	kinds     map[string]kind
	inner     *netns.Namespace
	netns     string
	// allCaps is a set of all capabilities of this kernel, as it prints it.
	allCaps string
	facts   map[string][]string
	// way is by which way sandboxes come by their sentries, "" by the usual one. There may be a
	// list of what is different then.
	way string
	// goferNets are the network namespaces of gofers.
	goferNets map[string]bool
}

// command is the manifest's: a bundle has its own.
func (w *isolation) command(name string) string {
	prog := "/bin/probe"
	switch name {
	case "bundle":
		return ""
	case "hostroot":
		// It has programs of the host only; the probe comes by a volume.
		return fmt.Sprintf("  command: [/mnt/bin/probe, '%s']\n  volumes: [{name: p, mountPath: /mnt, hostPath: %s/rootfs, readOnly: true}]\n", w.probeArgs, w.h.work)
	}
	return fmt.Sprintf("  command: [%s, '%s']\n", prog, w.probeArgs)
}

// writeBundles makes the bundle of a manifest and that of a container, each with
// a hook that runs in the sandbox.
func (w *isolation) writeBundles(t *testing.T) {
	t.Helper()
	for name, c := range map[string][2]string{"bundle": {"rootfs", `{}`}, "container": {"container-root", `{"namespaces":[{"type":"network"},{"type":"pid"}]}`}} {
		dir := filepath.Join(w.h.work, name)
		must(t, os.Mkdir(dir, 0o755))
		args, err := json.Marshal([]string{"/bin/probe", string(w.probeArgs)})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"ociVersion":"1.0.2","hostname":"box","root":{"path":%q},
			"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
			"process":{"args":%s,"cwd":"/","user":{"uid":0,"gid":0},"env":["A=b"],"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]}},
			"hooks":{"startContainer":[{"path":"/bin/busybox","args":["busybox","true"]}]},"linux":%s}`,
			w.h.work+"/"+c[0], args, c[1]), 0o644))
	}
}

// oci is a command of the OCI runtime.
func (w *isolation) oci(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(binDir, "sandboxctl"), append([]string{"oci", "--root", filepath.Join(w.h.work, "oci")}, args...)...)
}

func (w *isolation) startContainer(t *testing.T) {
	t.Helper()
	out, err := os.Create(filepath.Join(w.h.work, "container.out"))
	must(t, err)
	defer out.Close()
	create := w.oci("create", "--bundle", filepath.Join(w.h.work, "container"), "container")
	create.Stdout, create.Stderr = out, out
	t.Cleanup(func() {
		if b, err := w.oci("delete", "--force", "container").CombinedOutput(); err != nil {
			t.Errorf("delete container: %v\n%s", err, b)
		}
	})
	must(t, create.Run())
	if b, err := w.oci("start", "container").CombinedOutput(); err != nil {
		t.Fatalf("start container: %v\n%s", err, b)
	}
}

// output is what the probe of a kind has printed, nil if it is not done.
func (w *isolation) output(t *testing.T, name string) []byte {
	t.Helper()
	var out []byte
	if w.kinds[name].container {
		b, err := os.ReadFile(filepath.Join(w.h.work, "container.out"))
		must(t, err)
		out = b
	} else {
		// No logs yet is as good as no output.
		out, _ = w.h.command("logs", name).Output()
	}
	if !strings.HasSuffix(strings.ReplaceAll(string(out), "\r", ""), "\n}\n") {
		return nil
	}
	return out
}

// record is that of a running sandbox of a kind.
func (w *isolation) record(t *testing.T, name string) *actual.Record {
	t.Helper()
	store := w.h.store
	if w.kinds[name].container {
		var err error
		store, err = actual.OpenRuntimeStore(filepath.Join(w.h.work, "oci"))
		must(t, err)
		defer store.Close()
	}
	var rec *actual.Record
	w.h.until(name, func() bool {
		rec, _, _ = store.Get(name)
		return rec != nil && rec.Phase == actual.PhaseRunning
	})
	return rec
}

// precompiled says that there was a seccomp program for this kind of sentry: gVisor
// logs it if it has to compile one.
func (w *isolation) precompiled(t *testing.T, name string) {
	t.Helper()
	if w.kinds[name].container || runtime.GOARCH != "amd64" {
		return // nobody has generated those of other processors
	}
	out, err := w.h.command("logs", "--sentry", name).CombinedOutput()
	if err != nil || strings.Contains(string(out), "slows down sandbox startup") {
		t.Errorf("log of the sentry: %v\n%s", err, out)
	}
}

// look collects the facts of a kind.
func (w *isolation) look(t *testing.T, name string) {
	t.Helper()
	var out []byte
	for deadline := time.Now().Add(untilTimeout); out == nil; {
		if out = w.output(t, name); out == nil && time.Now().After(deadline) {
			log, err := w.h.command("logs", name).CombinedOutput()
			t.Fatalf("the probe is not done: %v\n%s", err, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
	app := w.inside(t, "app", out)
	for _, f := range app {
		w.add(name, "inside", f)
	}
	run := func(cmd *exec.Cmd) []byte {
		t.Helper()
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s\n%s", cmd.Args, err, stderr.String(), out)
		}
		return out
	}
	once := w.bait
	once.Hold, once.Tag = false, "exec"
	args, err := json.Marshal(once)
	must(t, err)
	exe := []string{"exec", name, "--", "/bin/probe", string(args)}
	switch name {
	case "restored":
		ck := filepath.Join(w.h.work, "ck")
		run(w.h.command("checkpoint", name, ck))
		run(w.h.command("restore", name, ck, "--wait"))
		w.record(t, name)
		w.executed(t, name, app, run(w.h.command(exe...)))
	case "plain", "user", "direct":
		w.executed(t, name, app, run(w.h.command(exe...)))
	case "overlay":
		w.executed(t, name, app, w.atTerminal(t, slices.Insert(exe, 1, "-t")))
	case "container":
		w.executed(t, name, app, run(w.oci("exec", name, "/bin/probe", string(args))))
	}
	w.outside(t, name, w.record(t, name))
	w.made(t, name)
}

// atTerminal is what a command prints that has a terminal.
func (w *isolation) atTerminal(t *testing.T, args []string) []byte {
	t.Helper()
	term := newTerminal(t)
	cmd := term.run(w.h, args...)
	must(t, cmd.Wait())
	term.see("\n}")
	text := term.text()
	return []byte(text[strings.IndexByte(text, '{'):])
}

// executed takes over what a probe that was executed sees and the application
// does not, or the other way round.
func (w *isolation) executed(t *testing.T, name string, app []string, out []byte) {
	t.Helper()
	facts := w.inside(t, "exec", out)
	for _, f := range facts {
		if !slices.Contains(app, f) {
			w.add(name, "exec", "+ "+f)
		}
	}
	for _, f := range app {
		if !slices.Contains(facts, f) {
			w.add(name, "exec", "- "+f)
		}
	}
}

// inside is what a probe has printed.
func (w *isolation) inside(t *testing.T, who string, out []byte) (facts []string) {
	t.Helper()
	var seen map[string][]string
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%s: %v\n%s", who, err, out)
	}
	for _, subject := range []string{"fd", "status", "env", "rlimit", "cwd", "uname", "ns", "processes", "mount", "dev", "list", "interface", "socket", "try", "write", "volume"} {
		// A probe that has not looked has not seen that there is nothing.
		if len(seen[subject]) == 0 {
			t.Errorf("%s: nothing on %s", who, subject)
		}
	}
	for subject, lines := range seen {
		for _, l := range lines {
			facts = append(facts, subject+" "+l)
		}
	}
	return facts
}

// made is what a sandbox has left in the tree that it shares with the host: no
// device, and nothing that belongs to somebody it is not.
func (w *isolation) made(t *testing.T, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.h.work, name+"-volume", "made-*"))
	must(t, err)
	for _, f := range files {
		var st unix.Stat_t
		must(t, unix.Lstat(f, &st))
		w.add(name, "volume", fmt.Sprintf("%s mode %o owner %d:%d device %d", filepath.Base(f), st.Mode, st.Uid, st.Gid, st.Rdev))
	}
}
