// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
)

// trap is a manifest that is in order, and what it names on the host is not.
type trap struct {
	spec string // lines of the spec but for the command
	want string // in the message of the status
	// mayHeal: what is missing may come, so it is tried again.
	mayHeal bool
}

// traps prepares the host and returns what is laid out there.
func (h *attackHost) traps(t *testing.T) map[string]trap {
	t.Helper()
	a := h.allowed
	h.must(os.WriteFile(a+"/file", []byte("file"), 0o644))
	links := map[string]string{
		"out": h.canary, "relative": "../canary", "up": "..", "root": "/", "etc": "/etc", "shadow": "/etc/shadow", "loop": "loop", "inside": "real", "file-link": h.canary + "/secret",
		"proc-self-root": "/proc/self/root", "proc-1-root": "/proc/1/root", "proc-self-cwd": "/proc/self/cwd", "proc-self-exe": "/proc/self/exe", "proc-self-fd": "/proc/self/fd/3", "dev-fd": "/dev/fd",
		"dangling": "/nonexistent", "chain": "chain2", "chain2": "out",
	}
	out := map[string]trap{}
	volume := func(p string) string {
		return fmt.Sprintf("  root: {dir: %s/rootfs}\n  volumes: [{name: v, mountPath: /mnt, readOnly: true, hostPath: %s}]\n", h.work, p)
	}
	dir := func(p string) string { return fmt.Sprintf("  root: {dir: %s}\n", p) }
	add := func(name, p, what string, heals bool) {
		out["volume "+name] = trap{volume(p), "spec.volumes[0].hostPath: open " + p + ": " + what, heals}
		out["root.dir "+name] = trap{dir(p), "spec.root.dir: open " + p + ": " + what, heals}
	}
	for link, to := range links {
		h.must(os.Symlink(to, filepath.Join(a, link)))
		add("link "+link, a+"/"+link, "", false)
		add("through link "+link, a+"/"+link+"/etc", "", false)
		h.must(os.MkdirAll(a+"/real/deep", 0o755))
		h.must(os.Symlink(to, a+"/real/deep/"+link))
		add("deep link "+link, a+"/real/deep/"+link, "", false)
	}
	h.must(unix.Mkfifo(a+"/fifo", 0o600))
	l, err := net.Listen("unix", a+"/docker.sock")
	h.must(err)
	t.Cleanup(func() { l.Close() })
	add("fifo", a+"/fifo", "expected a directory or a regular file", false)
	add("socket", a+"/docker.sock", "expected a directory or a regular file", false)
	for name, dev := range map[string]struct {
		mode  uint32
		major uint32
		minor uint32
	}{"null": {unix.S_IFCHR, 1, 3}, "mem": {unix.S_IFCHR, 1, 1}, "kvm": {unix.S_IFCHR, 10, 232}, "disk": {unix.S_IFBLK, 8, 0}} {
		h.must(unix.Mknod(a+"/"+name, dev.mode|0o600, int(unix.Mkdev(dev.major, dev.minor))))
		add("device "+name, a+"/"+name, "expected a directory or a regular file", false)
	}
	add("nothing", a+"/nosuch", "", true)
	add("file as a directory", a+"/file/etc", "", true)
	for _, fstype := range []string{"proc", "sysfs", "mqueue"} {
		for _, at := range []string{a + "/" + fstype, a + "/with-" + fstype + "/a/b"} {
			h.must(os.MkdirAll(at, 0o755))
			h.must(unix.Mount(fstype, at, fstype, 0, ""))
			t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
		}
		add(fstype, a+"/"+fstype, "", false)
		add(fstype+" below", a+"/with-"+fstype, "", false)
	}
	h.must(os.WriteFile(a+"/ns", nil, 0o600))
	h.must(unix.Mount("/proc/self/ns/net", a+"/ns", "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(a+"/ns", unix.MNT_DETACH) })
	add("namespace", a+"/ns", "", false)
	h.boundTraps(t, add)
	h.bundleTraps(out)
	h.netnsTraps(t, out)
	return out
}

// bundleTraps: bundles whose config.json is not to be trusted, or hostile.
func (h *attackHost) bundleTraps(out map[string]trap) {
	a := h.allowed + "/bundles"
	const good = `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["/bin/true"],"cwd":"/","user":{"uid":0,"gid":0}}`
	add := func(name, want string, lay func(dir string)) {
		dir := filepath.Join(a, strings.ReplaceAll(name, " ", "-"))
		h.must(os.MkdirAll(dir+"/rootfs", 0o755))
		lay(dir)
		out["bundle "+name] = trap{fmt.Sprintf("  root: {bundle: %s}\n", dir), want, name == "no config"}
	}
	config := func(text string) func(string) {
		return func(dir string) { h.must(os.WriteFile(dir+"/config.json", []byte(text), 0o644)) }
	}
	for name, c := range map[string]struct{ text, want string }{
		"of nothing":              {"", "config.json: EOF"},
		"cut":                     {good, "config.json: "},
		"null":                    {"null", "root.path: expected a path"},
		"list":                    {"[]", "config.json: "},
		"followed":                {good + "}{}", "something follows it"},
		"deep":                    {strings.Repeat("[", 100_000), "config.json: "},
		"unknown field":           {good + `,"privileged":true}`, "unknown field"},
		"no uid":                  {strings.Replace(good, `"uid":0`, `"uid":4294967295`, 1) + "}", "is no id"},
		"negative uid":            {strings.Replace(good, `"uid":0`, `"uid":-1`, 1) + "}", "config.json: "},
		"NUL":                     {strings.Replace(good, "/bin/true", `a\u0000b`, 1) + "}", "holds a NUL"},
		"no command":              {strings.Replace(good, `["/bin/true"]`, "[]", 1) + "}", "process.args"},
		"relative cwd":            {strings.Replace(good, `"/",`, `"../..",`, 1) + "}", "process.cwd"},
		"root up":                 {strings.Replace(good, `"rootfs"`, `"../../../canary"`, 1) + "}", "root.path: the host policy"},
		"root elsewhere":          {strings.Replace(good, `"rootfs"`, `"/opt"`, 1) + "}", "root.path: the host policy"},
		"root of the host":        {strings.Replace(good, `"rootfs"`, `"/"`, 1) + "}", "root.path: "},
		"mount of opt":            {good + `,"mounts":[{"destination":"/x","type":"bind","source":"/opt"}]}`, "mounts[0].source: the host policy"},
		"mount of etc":            {good + `,"mounts":[{"destination":"/x","type":"bind","source":"/etc"}]}`, "mounts[0].source: /etc is never shared with a sandbox"},
		"mount up":                {good + `,"mounts":[{"destination":"/x","type":"bind","source":"../../../../etc"}]}`, "mounts[0].source: the host policy"},
		"mount by option":         {good + `,"mounts":[{"destination":"/x","type":"none","source":"/opt","options":["rbind"]}]}`, "mounts[0].source: the host policy"},
		"mount to write":          {good + `,"mounts":[{"destination":"/x","type":"bind","source":"` + h.allowed + `/real","options":["rw"]}]}`, "mounts[0].source: the host policy"},
		"destination up":          {good + `,"mounts":[{"destination":"/x/../../etc","type":"tmpfs"}]}`, "mounts[0].destination"},
		"relative destination":    {good + `,"mounts":[{"destination":"x","type":"tmpfs"}]}`, "mounts[0].destination"},
		"mapped mount":            {good + `,"mounts":[{"destination":"/x","type":"tmpfs","uidMappings":[{"containerID":0,"hostID":0,"size":1}]}]}`, "id mappings"},
		"many mounts":             {good + `,"mounts":[{"destination":"/x","type":"tmpfs"}` + strings.Repeat(`,{"destination":"/x","type":"tmpfs"}`, 1000) + `]}`, "mounts: expected at most 1000"},
		"device":                  {good + `,"linux":{"devices":[{"path":"/dev/mem","type":"c","major":1,"minor":1}]}}`, "linux.devices"},
		"namespace of the host":   {good + `,"linux":{"namespaces":[{"type":"network","path":"/proc/1/ns/net"}]}}`, "linux.namespaces[0].path"},
		"mappings":                {good + `,"linux":{"uidMappings":[{"containerID":0,"hostID":0,"size":4294967295}]}}`, "linux.uidMappings"},
		"hook":                    {good + `,"hooks":{"createRuntime":[{"path":"/bin/touch","args":["touch","` + h.canary + `/hooked"]}]}}`, "hooks: they run as root on the host"},
		"poststop hook":           {good + `,"hooks":{"poststop":[{"path":"/bin/touch","args":["touch","` + h.canary + `/hooked"]}]}}`, "hooks: they run as root on the host"},
		"capability":              {strings.Replace(good, `"cwd"`, `"capabilities":{"bounding":["CAP_SYS_ADMIN"]},"cwd"`, 1) + "}", "process.capabilities"},
		"ambient capability":      {strings.Replace(good, `"cwd"`, `"capabilities":{"ambient":["CAP_SYS_MODULE"]},"cwd"`, 1) + "}", "process.capabilities"},
		"windows":                 {good + `,"windows":{"layerFolders":["c"]}}`, "not supported: it is for another platform than Linux"},
		"virtual machine":         {good + `,"vm":{"kernel":{"path":"/evil"}}}`, "not supported: it is for another platform than Linux"},
		"more than a mebibyte":    {good + "}" + strings.Repeat(" ", 1<<20), "at most 1048576 bytes"},
		"relative startContainer": {good + `,"hooks":{"startContainer":[{"path":"evil"}]}}`, "hooks.startContainer[0]"},
	} {
		add(name, c.want, config(c.text))
	}
	add("no config", "config.json", func(string) {})
	add("config is a link", "", func(dir string) { h.must(os.Symlink(h.canary+"/secret", dir+"/config.json")) })
	add("config is a fifo", "expected a regular file", func(dir string) { h.must(unix.Mkfifo(dir+"/config.json", 0o600)) })
	add("config is a directory", "expected a regular file", func(dir string) { h.must(os.Mkdir(dir+"/config.json", 0o700)) })
	add("config of another", "belongs to user 65534", func(dir string) {
		config(good + "}")(dir)
		h.must(os.Chown(dir+"/config.json", 65534, 65534))
	})
	add("config that others may write", "nobody else may write it", func(dir string) {
		config(good + "}")(dir)
		h.must(os.Chmod(dir+"/config.json", 0o666))
	})
	add("directory of another", "", func(dir string) {
		config(good + "}")(dir)
		h.must(os.Chown(dir, 65534, 65534))
	})
	add("directory that others may write", "", func(dir string) {
		config(good + "}")(dir)
		h.must(os.Chmod(dir, 0o777))
	})
	add("root is a link", "root.path: open", func(dir string) {
		config(good + "}")(dir)
		h.must(os.Remove(dir + "/rootfs"))
		h.must(os.Symlink(h.canary, dir+"/rootfs"))
	})
	add("mount of a link", "mounts[0].source: open", func(dir string) {
		config(good + `,"mounts":[{"destination":"/x","type":"bind","source":"link","options":["ro"]}]}`)(dir)
		h.must(os.Symlink("/etc", dir+"/link"))
	})
}

// netnsTraps: names in /run/netns that are no network namespace, or the host's.
// A name that is not there is waited for (TestNetnsMoves).
func (h *attackHost) netnsTraps(t *testing.T, out map[string]trap) {
	t.Helper()
	const dir = "/run/netns"
	h.must(os.MkdirAll(dir, 0o755))
	add := func(name, want string, lay func(path string)) {
		name = h.prefix + name
		path := filepath.Join(dir, name)
		t.Cleanup(func() {
			_ = unix.Unmount(path, unix.MNT_DETACH)
			_ = os.Remove(path)
		})
		lay(path)
		out["netns "+name] = trap{fmt.Sprintf("  root: {dir: %s/rootfs}\n  network: {mode: netns, netns: %s}\n", h.work, name), want, false}
	}
	add("file", "not a network namespace", func(p string) { h.must(os.WriteFile(p, nil, 0o600)) })
	add("fifo", "not a network namespace", func(p string) { h.must(unix.Mkfifo(p, 0o600)) })
	add("uts", "not a network namespace", func(p string) {
		h.must(os.WriteFile(p, nil, 0o600))
		h.must(unix.Mount("/proc/self/ns/uts", p, "", unix.MS_BIND, ""))
	})
	add("host", "it is the host's own", func(p string) {
		h.must(os.WriteFile(p, nil, 0o600))
		h.must(unix.Mount("/proc/self/ns/net", p, "", unix.MS_BIND, ""))
	})
	add("link-to-host", "it is the host's own", func(p string) { h.must(os.Symlink("/proc/self/ns/net", p)) })
}

// What can only be found out when a sandbox is created is refused then, for good
// unless it may heal by itself; the status says where it is asked for, and
// nothing was started.
func TestAttacksOnHost(t *testing.T) {
	h := newAttackHost(t, func(h *attackHost) string {
		return strings.Replace(restricted(h), "root:", "network: {netns: ['*']}\nroot:", 1)
	})
	traps := h.traps(t)
	h.before = h.touched()
	byName := map[string]string{}
	for what, tr := range traps {
		name := fmt.Sprintf("%s%d", h.prefix, len(byName))
		byName[name] = what
		text := fmt.Sprintf("# %s\napiVersion: %s\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n%s", what, desired.APIVersion, name, tr.spec)
		if !strings.HasPrefix(what, "bundle") {
			text += "  command: [/bin/busybox, 'true']\n"
		}
		h.must(os.WriteFile(filepath.Join(h.manifests, name+".yaml"), []byte(text), 0o644))
	}
	if len(traps) < 100 {
		t.Errorf("only %d", len(traps))
	}
	h.good()
	if out, err := h.command("validate").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.untilGood()
	refused := func(name string) *actual.Record {
		rec, _, err := h.store.Get(name)
		if err != nil || rec == nil || rec.Phase != actual.PhaseStopped || rec.App().LastExit == nil {
			return nil
		}
		return rec
	}
	for name, what := range byName {
		h.until(what, func() bool { return refused(name) != nil })
	}
	for name, o := range h.list() {
		what, ok := byName[name]
		if !ok {
			continue
		}
		x := o.Status.LastTermination
		if x == nil {
			t.Errorf("%s: %+v", what, o.Status)
			continue
		}
		tr := traps[what]
		if x.Reason != "CreateFailed" || !strings.Contains(x.Message, tr.want) || x.Permanent == tr.mayHeal {
			t.Errorf("%s: permanent %v: %q, expected %q", what, x.Permanent, x.Message, tr.want)
		}
		if strings.Contains(what, "bundle") && !strings.HasPrefix(x.Message, "spec.root.bundle: ") || strings.Contains(what, "netns") && !strings.HasPrefix(x.Message, "spec.network.netns: ") {
			t.Errorf("%s: no field: %q", what, x.Message)
		}
		if o.Status.SourceFile != name+".yaml" || o.Status.SourceLine != 2 {
			t.Errorf("%s: %s:%d", what, o.Status.SourceFile, o.Status.SourceLine)
		}
		if strings.IndexFunc(x.Message, untrusted.Obeyed) >= 0 || strings.Contains(x.Message, "canary\n") || o.Status.SentryPID != 0 {
			t.Errorf("%s: %+v", what, o.Status)
		}
	}
	// One that may heal is tried again meanwhile: between tries nothing is left.
	h.until("nothing is touched", func() bool { return h.touched() == h.before })
	t.Logf("%d traps", len(traps))
}
