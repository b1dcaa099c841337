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
	"sandboxctl.dev/desired"
)

// Some attacks on other runtimes need not be refused, since a sandbox is no
// container: what they reach is the sandbox itself. They are let run, with a
// directory to write to, and reach nothing.
func TestAttacksHarmless(t *testing.T) {
	h := newAttackHost(t, func(h *attackHost) string { return policyFor(h.work) })
	shared := h.allowed
	h.must(os.MkdirAll(shared+"/tree", 0o777))
	for name, to := range map[string]string{"secret": h.canary + "/secret", "up": "../../canary/secret", "root": "/proc/1/root" + h.canary + "/secret", "fd": "/proc/self/fd"} {
		h.must(os.Symlink(to, shared+"/tree/"+name))
	}
	l, err := net.Listen("unix", shared+"/tree/docker.sock")
	h.must(err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("canary"))
			c.Close()
		}
	}()
	h.must(unix.Mkfifo(shared+"/tree/fifo", 0o666))
	h.must(unix.Mknod(shared+"/tree/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	// A root filesystem whose directories for the sandbox's own filesystems are
	// links that lead out (CVE-2021-30465, and the like of /dev).
	root := shared + "/linked"
	h.must(os.MkdirAll(root+"/bin", 0o755))
	h.must(os.Link(h.work+"/rootfs/bin/busybox", root+"/bin/busybox"))
	for _, d := range []string{"proc", "sys", "dev", "etc", "mnt"} {
		h.must(os.Symlink(strings.Repeat("../", 20)+h.canary, root+"/"+d))
	}
	h.before = h.touched()

	const sh = "  command: [/bin/busybox, sh, -c]\n"
	plain := fmt.Sprintf("  root: {dir: %s/rootfs}\n", h.work) + sh
	volume := fmt.Sprintf("  volumes: [{name: v, mountPath: /mnt, hostPath: %s/tree}]\n", shared)
	secret := h.canary + "/secret"
	for name, c := range map[string]struct{ spec, script, want string }{
		"working directory of a leaked descriptor": {plain + "  workingDir: /proc/self/fd/7\n", "cat ../../../../../.." + secret + "; echo end", ""},
		"descriptors that lead out":                {plain, "for n in /proc/self/fd/*; do cat $n/../../../../../.." + secret + " $n" + secret + "; done 2>/dev/null; echo end", "end"},
		"its own program":                          {plain, "echo evil > /proc/self/exe || echo denied; echo evil > /proc/1/exe; echo end", ""},
		"root of another process":                  {plain, "cat /proc/1/root" + secret + " /proc/1/cwd" + secret + " || echo denied", "denied"},
		"variables that steer a runtime":           {plain + "  env: [{name: LD_PRELOAD, value: /evil.so}, {name: GODEBUG, value: 'x=1'}, {name: _LIBCONTAINER_INITPIPE, value: '3'}, {name: GOTRACEBACK, value: crash}, {name: TMPDIR, value: " + h.canary + "}]\n", "cat " + secret + " || echo denied $LD_PRELOAD", "denied /evil.so"},
		"links in what is shared":                  {plain + volume, "cat /mnt/secret /mnt/up /mnt/root /mnt/fd/../../.." + secret + " || echo denied", "denied"},
		"writing through links":                    {plain + volume, "echo evil > /mnt/secret || echo denied; ln -s " + secret + " /mnt/new && echo evil >> /mnt/new || echo denied; ln /mnt/secret /mnt/hard; chmod 777 /mnt/hard", "denied"},
		"socket in what is shared":                 {plain + volume, "nc local:/mnt/docker.sock </dev/null || echo denied", "denied"},
		"device in what is shared":                 {plain + volume, "mknod /mnt/evil c 1 1; cat /mnt/evil || echo denied; echo x > /mnt/null && echo null", "denied"},
		"fifo in what is shared":                   {plain + volume, "(echo x > /mnt/fifo) & sleep 1; echo end", "end"},
		"up from what is shared":                   {plain + volume, "cat /mnt/../canary/secret /mnt/../../canary/secret /mnt/../../../../../../.." + secret + " || echo denied", "denied"},
		"masked paths":                             {plain, "cat /proc/kcore /proc/sysrq-trigger /proc/timer_list >/dev/null || echo denied; echo b > /proc/sysrq-trigger; echo '|/evil' > /proc/sys/kernel/core_pattern || echo denied", "denied"},
		"mounts of its own":                        {plain, "mkdir /m; mount -t proc proc /m; mount --bind / /m; cat /m" + secret + " || echo denied", "denied"},
		"linked root":                              {fmt.Sprintf("  root: {dir: %s}\n", root) + sh, "cat /proc/secret /dev/secret /sys/secret /mnt/secret || echo denied", ""},
		"linked root, written through":             {fmt.Sprintf("  root: {dir: %s}\n  overlay: none\n", root) + sh + "  volumes: [{name: v, mountPath: /mnt/x, tmpfs: {}}, {name: w, mountPath: /etc/y, tmpfs: {}}]\n", "echo evil > /mnt/x/secret; echo evil > /etc/secret; echo end", ""},
		"a terminal that is obeyed":                {plain + "  terminal: true\n", `printf '\033[2J\033]0;evil\007\302\2332J\033[8m'; echo end`, "end"},
	} {
		n := fmt.Sprintf("%s%d", h.prefix, len(name)*100+int(name[0])+int(name[len(name)-1])*10000)
		text := fmt.Sprintf("apiVersion: %s\nkind: Sandbox\nmetadata:\n  name: %s\n  annotations: {dev.gvisor.flag.network: host, dev.gvisor.internal.nvproxy: 'true', dev.gvisor.spec.mount.v.source: %s}\nspec:\n%s  args: [%s]\n  restartPolicy: Never\n", desired.APIVersion, n, h.canary, c.spec, quote(c.script))
		h.write(filepath.Join(h.manifests, n+".yaml"), text)
		var rec *actual.Record
		h.until(name, func() bool {
			rec, _, _ = h.store.Get(n)
			return rec != nil && rec.Phase == actual.PhaseStopped && rec.App().LastExit != nil
		})
		out, err := h.command("logs", n).CombinedOutput()
		if strings.Contains(string(out), "canary\n") || strings.Contains(string(out)+rec.App().LastExit.Message, "canary\x00") {
			t.Errorf("%s: it has read the canary: %s", name, out)
		}
		if c.want != "" && !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %+v %v: %s", name, rec.App().LastExit, err, out)
		}
		t.Logf("%s: %+v", name, rec.App().LastExit)
		if after := h.touched(); withoutGroups(after) != withoutGroups(h.before) {
			t.Errorf("%s: before:\n%s\nafter:\n%s", name, h.before, after)
		}
		h.must(os.Remove(filepath.Join(h.manifests, n+".yaml")))
	}
}

// withoutGroups leaves out cgroups, which a sandbox may have.
func withoutGroups(touched string) string {
	var b strings.Builder
	for l := range strings.Lines(touched) {
		if !strings.HasPrefix(l, "/sys/fs/cgroup/") {
			b.WriteString(strings.TrimSuffix(l, "\n") + "\n")
		}
	}
	return b.String()
}
