// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
)

// attack is a manifest that must be refused where it is read.
type attack struct {
	name string
	text string
	// line of the problem, and how the field or else the message begins.
	line int
	want string
}

// attackNumber is in the place of the name of the sandbox, which becomes another
// for each attack.
const attackNumber = "NAME"

var attackHead = []string{
	"apiVersion: " + desired.APIVersion, "kind: " + desired.Kind, "metadata:", "  name: " + attackNumber, "spec:", "  root: {host: {}}", "  command: [/bin/true]",
}

// attackList collects attacks.
type attackList []attack

func (l *attackList) add(name, want string, line int, lines ...string) {
	*l = append(*l, attack{name: name, text: strings.Join(lines, "\n") + "\n", line: line, want: want})
}

// spec adds an attack by more lines of a spec, of which the last is bad.
func (l *attackList) spec(name, want string, lines ...string) {
	all := slices.Clone(attackHead)
	for _, line := range lines {
		all = append(all, "  "+line)
	}
	l.add(name, want, len(all), all...)
}

// line adds an attack by another line of the head.
func (l *attackList) line(name, want string, n int, line string) {
	all := slices.Clone(attackHead)
	all[n-1] = line
	l.add(name, want, n, all...)
}

// quote is a string in double quotes with the escapes of YAML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r >= 0x7f && r < 0xa0 || untrusted.Obeyed(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// obeyedStrings are what must not be in anything that is shown.
var obeyedStrings = map[string]string{
	"escape": "\x1b[2J", "title": "\x1b]0;t\x07", "bell": "\x07", "backspace": "\b\b", "delete": "\x7f", "c1": "\u009b2J", "carriage return": "a\rb",
	"bidi override": "\u202egpj", "bidi isolate": "\u2066x", "line separator": "\u2028x", "next line": "\u0085x",
}

// attacks are all there are, for a host on which only allowed may be shared, to
// read. others are sandboxctl's own paths and neighbours of allowed.
func attacks(allowed string, others []string) []attack {
	var l attackList
	l.paths(allowed)
	l.hostPaths(allowed, others)
	l.names()
	l.text()
	l.numbers()
	l.privileges()
	l.shapes()
	l.stores()
	return l
}

// paths: what is no absolute path that says where it leads.
func (l *attackList) paths(allowed string) {
	bad := map[string]string{
		"up": "..", "here": ".", "relative": "etc/shadow", "relative up": "../../etc/shadow", "up in the middle": allowed + "/../../etc", "up in the end": allowed + "/..",
		"up from the root": "/../etc/shadow", "here in the middle": allowed + "/./x", "double slash": allowed + "//x", "slash in the end": allowed + "/", "two slashes": "//etc",
		"home": "~/x", "variable": "$HOME", "url": "file:///etc/shadow", "windows": `C:\x`, "backslash": `\etc`, "space": " /etc", "up, many": strings.Repeat("/..", 30) + "/etc",
		"too long": "/" + strings.Repeat("a/", 2500) + "a", "name too long": "/" + strings.Repeat("a", 256), "NUL": allowed + "\x00/x",
	}
	for name, s := range obeyedStrings {
		bad[name] = allowed + "/" + s
	}
	for name, p := range bad {
		q := quote(p)
		l.line("root.dir, "+name, "spec.root.dir", 6, "  root: {dir: "+q+"}")
		l.add("root.bundle, "+name, "spec.root.bundle", 6, append(slices.Clone(attackHead[:5]), "  root: {bundle: "+q+"}")...)
		l.spec("hostPath, "+name, "spec.volumes[0].hostPath", "volumes: [{name: v, mountPath: /mnt, readOnly: true, hostPath: "+q+"}]")
		l.spec("mountPath, "+name, "spec.volumes[0].mountPath", "volumes: [{name: v, tmpfs: {}, mountPath: "+q+"}]")
		if !strings.HasPrefix(p, "/") || strings.IndexFunc(p, untrusted.Obeyed) >= 0 || len(p) > 255 {
			l.spec("workingDir, "+name, "spec.workingDir", "workingDir: "+q)
		}
		if name != "home" && name != "variable" {
			l.spec("netns, "+name, "spec.network", "network: {mode: netns, netns: "+q+"}")
		}
	}
	for _, p := range []string{"/", "/proc", "/proc/self", "/proc/self/fd", "/sys", "/sys/fs/cgroup", "/dev", "/dev/fd", "/dev/null", "/dev/pts", "/dev/shm/x", "/dev/console"} {
		l.spec("mounted over the sandbox's own "+p, "spec.volumes[0].mountPath", "volumes: [{name: v, tmpfs: {}, mountPath: "+p+"}]")
	}
}

// hostPaths: what a host never shares, or this one does not.
func (l *attackList) hostPaths(allowed string, others []string) {
	for _, p := range slices.Concat(strings.Fields(`/ /proc /proc/self/root /proc/1/root /proc/1/cwd /proc/self/fd/7 /proc/kcore /proc/sysrq-trigger
		/proc/sys/kernel/core_pattern /sys /sys/fs/cgroup /sys/kernel/debug /sys/kernel/uevent_helper /sys/firmware /dev /dev/fd /dev/fd/3 /dev/stdin /dev/kvm
		/dev/mem /dev/sda /dev/pts /dev/shm /etc /etc/shadow /etc/passwd /etc/cron.d /etc/ld.so.preload /etc/systemd/system /etc/sandboxctl /root /root/.ssh
		/home /boot /usr /usr/bin /lib/modules /tmp /run /run/netns /run/docker.sock /var/run/docker.sock /run/containerd/containerd.sock /run/crio/crio.sock
		/run/podman/podman.sock /run/systemd/private /run/dbus/system_bus_socket /run/udev /var/lib/docker /var/lib/kubelet /var/lib/sandboxctl /var/log /mnt`), others) {
		l.line("root.dir of "+p, "spec.root.dir", 6, "  root: {dir: "+p+"}")
		l.spec("volume of "+p, "spec.volumes[0].hostPath", "volumes: [{name: v, mountPath: /mnt, readOnly: true, hostPath: "+p+"}]")
		if p != "/" {
			l.add("bundle of "+p, "spec.root.bundle", 6, append(slices.Clone(attackHead[:5]), "  root: {bundle: "+p+"}")...)
		}
	}
	l.spec("volume to write", "spec.volumes[0].hostPath", "volumes: [{name: v, mountPath: /mnt, hostPath: "+allowed+"/real}]")
	l.add("root.dir to write", "spec.root.dir", 6, append(slices.Concat(attackHead[:5], []string{"  root: {dir: " + allowed + "/real}"}, attackHead[6:]), "  overlay: none")...)
}

// names: of sandboxes, of hosts, of volumes, of variables.
func (l *attackList) names() {
	bad := map[string]string{
		"up": "..", "here": ".", "option": "-rf", "long option": "--help", "dash": "-", "dash in the end": "a-", "slash": "a/b", "traversal": "../../etc/cron.d/x", "NUL": "a\x00b",
		"upper case": "WEB", "case variant": "Web", "underscore": "a_b", "space": "a b", "space before": " a", "space after": "a ", "accent": "café", "cyrillic": "\u0430dmin",
		"fullwidth": "\uff41", "zero width": "a\u200bb", "too long": strings.Repeat("a", 64), "much too long": strings.Repeat("a", 5000), "percent": "a%2fb", "substitution": "$(id)",
		"backticks": "`id`", "semicolon": "a;id", "glob": "*", "hidden": ".a", "at": "a@b", "colon": "a:b", "tilde": "~", "newline": "a\nb", "tab": "a\tb", "empty": "", "quote": `a"b`,
	}
	maps.Copy(bad, obeyedStrings)
	for name, s := range bad {
		q := quote(s)
		l.line("name, "+name, "metadata.name", 4, "  name: "+q)
		l.spec("volume's name, "+name, "spec.volumes[0].name", "volumes: [{mountPath: /mnt, tmpfs: {}, name: "+q+"}]")
		if s != "" && name != "upper case" && name != "case variant" {
			l.spec("hostname, "+name, "spec.hostname", "hostname: "+q)
		}
	}
	for name, v := range map[string]string{"number": "7", "exponent": "1e3", "boolean": "true", "word": "no", "null": "null", "nothing": "", "list": "[a]", "object": "{a: b}", "date": "2001-01-01", "hex": "0x10"} {
		l.line("name, "+name, "metadata.name", 4, "  name: "+v)
	}
	for name, s := range map[string]string{
		"empty": "", "assignment": "A=B", "digit": "1A", "space": "A B", "newline": "A\nB", "NUL": "A\x00B", "accent": "É", "variable": "$A", "dash": "-A", "escape": "\x1b[2J",
		"two": "LD_PRELOAD=/evil.so", "brackets": "BASH_FUNC_a%%",
	} {
		l.spec("variable's name, "+name, "spec.env[0].name", "env: [{value: x, name: "+quote(s)+"}]")
	}
	l.spec("variable's value, NUL", "spec.env[0].value", `env: [{name: A, value: "a\0b"}]`)
	l.spec("variable from a secret, path", "spec.env[0].valueFrom.secret.name", `env: [{name: A, valueFrom: {secret: {name: ../a, key: b}}}]`)
	l.spec("variable from a secret, key", "spec.env[0].valueFrom.secret.key", `env: [{name: A, valueFrom: {secret: {name: a, key: ../b}}}]`)
	for name, v := range map[string]string{"empty list": "[]", "empty program": `[""]`, "string": "sh", "NUL": `["a\0b"]`, "null": "[null]", "number": "[1]", "list": "[[a]]"} {
		l.line("command, "+name, "spec.command", 7, "  command: "+v)
	}
	l.spec("argument, NUL", "spec.args[0]", `args: ["a\0b"]`)
}

// text: what is shown to people.
func (l *attackList) text() {
	for name, s := range obeyedStrings {
		q := quote(s)
		l.add("label, "+name, "metadata.labels", 5, append(slices.Insert(slices.Clone(attackHead), 4, "  labels: {app: "+q+"}"), "")...)
		l.add("label's name, "+name, "metadata.labels", 5, append(slices.Insert(slices.Clone(attackHead), 4, "  labels: {"+q+": app}"), "")...)
		l.add("annotation, "+name, "metadata.annotations", 5, append(slices.Insert(slices.Clone(attackHead), 4, "  annotations: {note: "+q+"}"), "")...)
		l.spec("field, "+name, "spec", q+": 1")
		// Not escaped: in the file itself.
		if name != "carriage return" {
			l.spec("raw, "+name, "expected UTF-8 text", "args: ['"+s+"']")
		}
		l.spec("raw in a comment, "+name, "expected UTF-8 text", "# "+s)
	}
	for name, s := range map[string]string{"NUL": "\x00", "no UTF-8": "\xff", "overlong": "\xc0\xaf", "surrogate": "\xed\xa0\x80", "cut": "\xe2\x82"} {
		l.spec("raw, "+name, "expected UTF-8 text", "# "+s)
	}
}

// numbers: out of range, negative, none.
func (l *attackList) numbers() {
	ids := map[string]string{
		"-1": "-1", "none": "4294967295", "too large": "4294967296", "overflow": "18446744073709551616", "exponent": "1e3", "hex": "0x0", "octal": "0o7", "old octal": "007", "string": "'0'", "null": "null",
		"fraction": "1.5", "infinity": ".inf", "NaN": ".nan", "plus": "+1", "underscore": "1_0", "name": "root", "list": "[0]",
	}
	for name, v := range ids {
		l.spec("uid, "+name, "spec.user", "user: {gid: 0, uid: "+v+"}")
		l.spec("gid, "+name, "spec.user", "user: {uid: 0, gid: "+v+"}")
		l.spec("group, "+name, "spec.user", "user: {uid: 0, gid: 0, groups: [1, "+v+"]}")
	}
	amounts := map[string]string{
		"negative": "-1", "negative string": "'-500m'", "plus": "'+500m'", "exponent": "1e18", "NaN": ".nan", "infinity": ".inf", "overflow": "99999999999999999999999", "empty": "''",
		"unit only": "m", "unknown unit": "1X", "list": "[1]", "object": "{a: 1}", "boolean": "true", "null": "null", "hex": "0xff", "space": "'1 G'", "two points": "1.2.3", "comma": "'1,5'", "fraction": "1/3", "huge": "'" + strings.Repeat("9", 400) + "'",
	}
	for name, v := range amounts {
		l.spec("cpu, "+name, "spec.resources.cpu", "resources: {cpu: "+v+"}")
		l.spec("memory, "+name, "spec.resources.memory", "resources: {memory: "+v+"}")
		l.spec("pids, "+name, "spec.resources.pids", "resources: {pids: "+v+"}")
		l.spec("tmpfs, "+name, "spec.volumes[0].tmpfs.size", "volumes: [{name: v, mountPath: /mnt, tmpfs: {size: "+v+"}}]")
	}
	for name, r := range map[string]string{
		"cpu, too small": "cpu: 1m", "cpu, too large": "cpu: 9223372036854775807m", "cpu, many": "cpu: 8193", "memory, too small": "memory: 1", "pids, too small": "pids: 1",
		"pids, too large": "pids: 4194305", "pids, largest number": "pids: 9223372036854775807",
	} {
		field, _, _ := strings.Cut(r, ":")
		l.spec(name, "spec.resources."+field, "resources: {"+r+"}")
	}
	const one = "[{containerID: 0, hostID: 1, size: 1}]"
	for name, m := range map[string]string{
		"overlapping": "[{containerID: 0, hostID: 1, size: 9}, {containerID: 5, hostID: 100, size: 1}]", "overlapping on the host": "[{containerID: 0, hostID: 1, size: 9}, {containerID: 20, hostID: 3, size: 1}]",
		"no size": "[{containerID: 0, hostID: 1, size: 0}]", "all and more": "[{containerID: 0, hostID: 1, size: 4294967295}]", "past the end": "[{containerID: 0, hostID: 4294967295, size: 1}]",
		"no root": "[{containerID: 1, hostID: 1, size: 1}]", "none": "[]", "too many": "[" + strings.Repeat("{containerID: 0, hostID: 1, size: 1}, ", 341) + "]",
		"negative": "[{containerID: 0, hostID: -1, size: 1}]", "negative size": "[{containerID: 0, hostID: 1, size: -1}]", "string": "root", "null": "null",
	} {
		l.spec("uids, "+name, "spec.idMappings.uids", "idMappings: {gids: "+one+", uids: "+m+"}")
		l.spec("gids, "+name, "spec.idMappings.gids", "idMappings: {uids: "+one+", gids: "+m+"}")
	}
	for name, v := range map[string]string{"negative": "-1s", "no unit": "10", "a year": "8760h", "overflow": "9999999999h", "exponent": "1e9s", "word": "forever", "null": "null", "NaN": ".nan"} {
		l.spec("grace, "+name, "spec.terminationGracePeriod", "terminationGracePeriod: "+v)
		l.spec("backoff, "+name, "spec.backoff.initial", "backoff: {initial: "+v+"}")
	}
	for name, v := range map[string]string{
		"soft over hard": "{type: NOFILE, soft: 2, hard: 1}", "unknown": "{type: NOPE, soft: 1, hard: 1}", "negative": "{type: NOFILE, hard: 1, soft: -1}",
		"overflow": "{type: NOFILE, soft: 1, hard: 18446744073709551616}", "twice": "{type: CPU, soft: 1, hard: 1}, {type: RLIMIT_CPU, soft: 1, hard: 1}",
	} {
		l.spec("rlimit, "+name, "spec.rlimits", "rlimits: ["+v+"]")
	}
	l.spec("backoff limit", "spec.backoff.limit", "backoff: {limit: -1}")
	l.spec("backoff, max below initial", "spec.backoff.max", "backoff: {initial: 10s, max: 1s}")
}

// privileges: what the policy does not give, and what there is not.
func (l *attackList) privileges() {
	for c := range strings.FieldsSeq(`AUDIT_CONTROL AUDIT_READ BLOCK_SUSPEND BPF CHECKPOINT_RESTORE DAC_READ_SEARCH IPC_LOCK IPC_OWNER LEASE LINUX_IMMUTABLE MAC_ADMIN
		MAC_OVERRIDE NET_ADMIN NET_BROADCAST PERFMON SYS_ADMIN SYS_BOOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM
		ALL cap_sys_admin CAP_CAP_SYS_ADMIN NOPE * 21`) {
		l.spec("capability "+c, "spec.capabilities.add[0]", "capabilities: {add: ['"+c+"']}")
	}
	for want, lines := range map[string][]string{
		"spec.network.mode":  {"network: {mode: host}", "network: {mode: bridged}", "network: {mode: container}", "network: {mode: HOST}"},
		"spec.network.netns": {"network: {mode: netns}", "network: {mode: netns, netns: ''}", "network: {mode: netns, netns: default}", "network: {mode: netns, netns: '-rf'}", "network: {netns: shop}"},
		"spec.network.ports": {"network: {ports: [{hostPort: 22, containerPort: 22}]}", "network: {ports: [{hostPort: 65536, containerPort: 1}]}", "network: {ports: [{hostPort: -1, containerPort: 1}]}"},
		"spec.network.dns":   {"network: {dns: {nameservers: [8.8.8.8]}}"},
		"spec.platform":      {"platform: kvm", "platform: ptrace", "platform: native", "platform: /evil.so"},
		"spec.fileAccess":    {"fileAccess: direct", "fileAccess: exclusive", "fileAccess: Proxy"},
		"spec.overlay":       {"overlay: none", "overlay: floppy", "overlay: 'root:/etc'", "overlay: all:memory"},
		"spec.restartPolicy": {"restartPolicy: always", "restartPolicy: unless-stopped"},
		"spec.stopSignal":    {"stopSignal: SIGNOPE", "stopSignal: '99'", "stopSignal: 'SIGTERM; id'", "stopSignal: 0", "stopSignal: -9"},
		"spec.suspend":       {"suspend: yes", "suspend: 'true'", "suspend: 1"},
		"spec.terminal":      {"terminal: on", "terminal: /dev/tty"},
		"spec.probes":        {"probes: {liveness: {exec: {command: [id]}}}"},
		"spec.dependsOn":     {"dependsOn: [a]"},
	} {
		for _, line := range lines {
			l.spec(line, want, line)
		}
	}
	for field := range strings.FieldsSeq(`privileged securityContext hostPID hostIPC hostNetwork hostUsers devices hooks annotations runtimeClassName seccomp seccompProfile
		apparmor selinux sysctls mounts image containers initContainers flags runtimeArgs allowFlagOverride nvproxy tpuproxy cgroupsPath uidMappings rootfsPropagation
		maskedPaths readonlyPaths noNewPrivileges oomScoreAdj namespaces linux debug strace profile hostUDS hostFifo hostSettings pod-init-config __proto__ constructor`) {
		l.spec("field "+field, "spec."+field, field+": true")
	}
	for field := range strings.FieldsSeq("namespace uid generation creationTimestamp deletionTimestamp finalizers ownerReferences managedFields resourceVersion selfLink") {
		l.add("metadata."+field, "metadata."+field, 5, slices.Insert(slices.Clone(attackHead), 4, "  "+field+": x")...)
	}
	l.add("status", "status", 8, append(slices.Clone(attackHead), "status: {phase: Running, sentryPID: 1}")...)
	l.add("root, two", "spec.root", 6, append(slices.Clone(attackHead[:5]), "  root: {host: {}, bundle: /srv/x}")...)
	l.line("root, none", "spec.root", 6, "  root: {}")
	for _, ref := range []string{
		"archive:/etc/shadow", "oci:/proc/1/root", "archive:../x.tar", "oci:x", "archive:/srv/x/../../etc/shadow", "archive:", "local:",
		"127.0.0.1:5000/x", "localhost/x", "[::1]:5000/x", "host.example:22/x", "169.254.169.254/latest/meta-data", "evil/../../x", "x@sha256:00", "file:///etc/shadow", "http://host.example/x", "",
	} {
		l.line("root, image "+ref, "spec.root.image.ref", 6, "  root: {image: {ref: "+quote(ref)+"}}")
	}
	l.line("root, image with options", "spec.root.image.insecure", 6, "  root: {image: {ref: x, insecure: true}}")
	l.line("root, host with options", "spec.root.host", 6, "  root: {host: {path: /}}")
	l.line("root, null", "spec.root", 6, "  root: null")
	l.spec("volume, two sources", "spec.volumes[0]", "volumes: [{name: v, mountPath: /mnt, tmpfs: {}, hostPath: /srv/x}]")
	l.spec("volume, no source", "spec.volumes[0]", "volumes: [{name: v, mountPath: /mnt}]")
	l.spec("volume, config", "spec.volumes[0].config.name", "volumes: [{name: v, mountPath: /mnt, config: {name: ../x}}]")
	l.spec("volume, secret", "spec.volumes[0].secret.name", `volumes: [{name: v, mountPath: /mnt, secret: {name: "x/../../y"}}]`)
	l.spec("volume, named", "spec.volumes[0].volume.name", "volumes: [{name: v, mountPath: /mnt, volume: {name: ../x}}]")
	l.spec("volume, propagation", "spec.volumes[0].mountPropagation", "volumes: [{name: v, mountPath: /mnt, tmpfs: {}, mountPropagation: Bidirectional}]")
	l.spec("volume, subPath", "spec.volumes[0].subPath", "volumes: [{name: v, mountPath: /mnt, tmpfs: {}, subPath: ../..}]")
}

// shapes: what is given twice, in another case, in another kind, or hidden.
func (l *attackList) shapes() {
	l.spec("spec twice", "spec.command", "command: [/bin/false]")
	l.add("spec twice at the top", "spec", 8, append(slices.Clone(attackHead), "spec: {root: {dir: /}}")...)
	l.add("name twice", "metadata.name", 5, slices.Insert(slices.Clone(attackHead), 4, "  name: other")...)
	l.line("root twice", "spec.root.host", 6, "  root: {host: {}, host: {}}")
	l.spec("hostPath twice", "spec.volumes[0].hostPath", "volumes: [{name: v, mountPath: /mnt, readOnly: true, hostPath: /srv/a, hostPath: /etc}]")
	l.spec("variable twice", "spec.env[1].name", "env: [{name: A, value: a}, {name: A, value: b}]")
	l.spec("volume's name twice", "spec.volumes[1].name", "volumes: [{name: v, mountPath: /a, tmpfs: {}}, {name: v, mountPath: /b, tmpfs: {}}]")
	l.spec("mounted twice", "spec.volumes[1].mountPath", "volumes: [{name: v, mountPath: /a, tmpfs: {}}, {name: w, mountPath: /a, tmpfs: {}}]")
	for _, key := range []string{"Root", "ROOT", "HostName", "Volumes", "WORKINGDIR", "ro\\u006ft", " root", "root ", "\\uff52oot", "root\\0"} {
		l.spec("key "+key, "spec", `"`+key+`": {dir: /}`)
	}
	for _, v := range []string{"v1", "sandboxctl.dev/v1", "sandboxctl.dev/v1beta1", "SANDBOXCTL.DEV/v1alpha1", "''", "' sandboxctl.dev/v1alpha1'", "1", "null", "[sandboxctl.dev/v1alpha1]"} {
		l.line("apiVersion "+v, "apiVersion", 1, "apiVersion: "+v)
	}
	for _, v := range []string{"Pod", "List", "sandbox", "HostPolicy", "''", "null", "[Sandbox]"} {
		l.line("kind "+v, "kind", 2, "kind: "+v)
	}
	for name, tail := range map[string][]string{
		"hidden by an end marker": {"...", "kind: Pod"}, "trailing bracket": {"]"}, "trailing quote": {`"`},
	} {
		l.add(name, "", 0, append(slices.Clone(attackHead), tail...)...)
	}
	for name, line := range map[string]string{
		"anchor": "hostname: &a web", "alias": "hostname: *a", "tag": "hostname: !!str web", "local tag": "hostname: !secret web", "python tag": "args: !!python/object/apply:os.system [id]",
		"binary": "hostname: !!binary d2Vi", "merge": "<<: {hostname: x}", "deep": "args: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "deeper": "args: " + strings.Repeat("[", 4000),
		"many": "args: [" + strings.Repeat("a,", 5000) + "a]", "tab": "\thostname: web", "template": "hostname: {{ .Values.x }}", "conflict": "<<<<<<< HEAD",
	} {
		l.spec(name, "", line)
	}
	l.add("JSON and more", "", 0, `{"apiVersion":"`+desired.APIVersion+`","kind":"Sandbox","metadata":{"name":"`+attackNumber+`"},"spec":{"root":{"host":{}},"command":["a"]}} {}`)
	l.add("UTF-16", "", 0, "\xff\xfea\x00")
	l.add("byte order mark", "", 0, "\ufeff"+strings.Join(attackHead, "\n"))
	l.add("nothing", "", 0, "")
	l.add("a mebibyte and more", "", 0, strings.Repeat("# x\n", 300_000))
}
