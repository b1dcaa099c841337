// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"fmt"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/desiredtest"
)

const policyHead = "apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"

func policyOf(t *testing.T, lines ...string) *Policy {
	t.Helper()
	p, problems := Decode("policy.yaml", []byte(policyHead+strings.Join(lines, "\n")))
	if p == nil {
		t.Fatal(problems)
	}
	return p.protecting([]string{"/etc/sandboxctl/policy.yaml", "/srv/sandboxctl/state"}, nil)
}

func TestPolicyCheck(t *testing.T) {
	t.Parallel()
	volume := func(path, more string) string {
		return "volumes: [{name: a, mountPath: /a, hostPath: " + path + more + "}]"
	}
	for name, c := range map[string]struct {
		policy string
		spec   string
		want   string // the beginning of the only problem, "" for none
	}{
		"minimal":                     {"", "", ""},
		"minimal, nothing allowed":    {"root: {host: false}", "", "f.yaml:5:10: spec.root.host: the host policy policy.yaml does not allow a view of the host"},
		"shared directory":            {"", volume("/srv/sandboxctl", ""), "f.yaml:7:38: spec.volumes[0].hostPath: /srv/sandboxctl is never shared with a sandbox: /srv/sandboxctl/state is sandboxctl's own"},
		"below the shared directory":  {"", volume("/srv/sandboxctl/a/b", ""), ""},
		"beside the shared directory": {"", volume("/srv/sandboxctl2", ""), "f.yaml:7:38: spec.volumes[0].hostPath: the host policy policy.yaml does not allow /srv/sandboxctl2; allowed: /srv/sandboxctl; move it there, or have the administrator add it to hostPaths"},
		"elsewhere":                   {"", volume("/etc", ", readOnly: true"), "f.yaml:7:38: spec.volumes[0].hostPath: /etc is never shared"},
		"own state":                   {"hostPaths: [{path: /srv, access: readWrite}]", volume("/srv/sandboxctl/state/sandboxes", ""), "f.yaml:7:38: spec.volumes[0].hostPath: /srv/sandboxctl/state/sandboxes is never shared"},
		"above own state":             {"hostPaths: [{path: /srv, access: readWrite}]", volume("/srv", ", readOnly: true"), "f.yaml:7:38: spec.volumes[0].hostPath: /srv is never shared"},
		"read only":                   {"hostPaths: [{path: /usr/share, access: readOnly}]", volume("/usr/share/zoneinfo", ""), "f.yaml:7:38: spec.volumes[0].hostPath: the host policy policy.yaml allows /usr/share to be read only; set readOnly: true"},
		"read only, read":             {"hostPaths: [{path: /usr/share, access: readOnly}]", volume("/usr/share/zoneinfo", ", readOnly: true"), ""},
		"the one that allows most":    {"hostPaths: [{path: /a, access: readOnly}, {path: /a/b, access: readWrite}]", volume("/a/b/c", ""), ""},
		"owners":                      {"hostPaths: [{path: /a, access: readWrite, changeOwner: true}]", volume("/a/b", ", ownership: {uid: 5}"), ""},
		"owners, not allowed":         {"hostPaths: [{path: /a, access: readWrite}]", volume("/a/b", ", ownership: {uid: 5}"), "f.yaml:7:54: spec.volumes[0].ownership: the host policy policy.yaml does not allow owners of files of the host to be changed there; chown /a/b on the host, use a named volume"},
		"owners elsewhere":            {"hostPaths: [{path: /a, access: readWrite}, {path: /a/c, access: readWrite, changeOwner: true}]", volume("/a/b", ", ownership: {uid: 5}"), "f.yaml:7:54: spec.volumes[0].ownership: the host policy policy.yaml does not allow owners"},
		"owners, the outer one":       {"hostPaths: [{path: /a, access: readWrite, changeOwner: true}, {path: /a/c, access: readWrite}]", volume("/a/c/d", ", readOnly: true, ownership: {uid: 5, when: onRootMismatch}"), ""},
		"owners, sub path":            {"hostPaths: [{path: /a, access: readWrite}, {path: /a/c, access: readWrite, changeOwner: true}]", volume("/a", ", subPath: c/d, ownership: {uid: 5}"), ""},
		"owners, own state":           {"hostPaths: [{path: /srv, access: readWrite, changeOwner: true}]", volume("/srv/sandboxctl/state", ", ownership: {uid: 5}"), "f.yaml:7:38: spec.volumes[0].hostPath: /srv/sandboxctl/state is never shared"},
		"owners of a named volume":    {"hostPaths: []", "volumes: [{mountPath: /x, volume: {name: v}, ownership: {uid: 5}}]", ""},
		"environment file":            {"hostPaths: [{path: /e, access: readOnly}]", "envFrom: [{file: /e/a}]", ""},
		"environment file elsewhere":  {"", "envFrom: [{file: /srv/sandboxctl/a}, {file: /etc/default/x}]", "f.yaml:7:41: spec.envFrom[1].file: the host policy policy.yaml does not allow /etc/default/x; allowed: /srv/sandboxctl; move it there, or have the administrator add it to hostPaths"},
		"environment file of others":  {"", "envFrom: [{file: /root/a}]", "f.yaml:7:14: spec.envFrom[0].file: the host policy policy.yaml does not allow /root/a; allowed: /srv/sandboxctl"},
		"environment file, own state": {"", "envFrom: [{file: /srv/sandboxctl/state/a}]", "f.yaml:7:14: spec.envFrom[0].file: /srv/sandboxctl/state/a is never shared"},
		"value of a file elsewhere":   {"", "env: [{name: A, valueFrom: {file: /srv/sandboxctl/a}}, {name: B, valueFrom: {file: /root/a}}]", "f.yaml:7:80: spec.env[1].valueFrom.file: the host policy policy.yaml does not allow /root/a; allowed: /srv/sandboxctl"},
		"secret elsewhere":            {"", "volumes: [{name: a, mountPath: /a, secret: {files: {k: /root/a}}}]", "f.yaml:7:55: spec.volumes[0].secret.files.k: the host policy policy.yaml does not allow /root/a"},
		"named volume":                {"", "volumes: [{mountPath: /a, volume: {name: v}}]", ""},
		"no named volume":             {"namedVolumes: false", "volumes: [{mountPath: /a, volume: {name: v}}]", "f.yaml:7:29: spec.volumes[0].volume: the host policy policy.yaml does not allow named volumes; use hostPath"},
		"published port":              {"", "network: {ports: [{containerPort: 80, hostPort: 1024}]}", ""},
		"low port":                    {"", "network: {ports: [{containerPort: 80, hostPort: 80}]}", "f.yaml:7:41: spec.network.ports[0].hostPort: the host policy policy.yaml allows ports of the host from 1024, got 80; use another one, or have the administrator set network.ports.min"},
		"low port, not published":     {"", "network: {ports: [{containerPort: 80}]}", ""},
		"low port, allowed":           {"network: {ports: {min: 1}}", "network: {ports: [{containerPort: 80, hostPort: 80}]}", ""},
		"port at an address":          {"network: {ports: {addresses: [127.0.0.0/8]}}", "network: {ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}]}", ""},
		"port at another address":     {"network: {ports: {addresses: [127.0.0.1]}}", "network: {ports: [{containerPort: 80, hostPort: 8080, hostIP: 192.0.2.1}]}", "f.yaml:7:57: spec.network.ports[0].hostIP: the host policy policy.yaml does not allow ports at 192.0.2.1; allowed: 127.0.0.1"},
		"port at all addresses":       {"network: {ports: {addresses: [127.0.0.1]}}", "network: {ports: [{containerPort: 80, hostPort: 8080}]}", "f.yaml:7:21: spec.network.ports[0].hostIP: is missing: the host policy policy.yaml does not allow ports at all addresses of the host; allowed: 127.0.0.1"},
		"port nowhere":                {"network: {ports: {addresses: []}}", "network: {ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}]}", "f.yaml:7:57: spec.network.ports[0].hostIP: the host policy policy.yaml does not allow ports at 127.0.0.1; allowed: none"},
		"denied, by default":          {"network: {deny: [private]}", "network: {mode: bridge}", "f.yaml:7:3: spec.network.egress.default: the host policy policy.yaml forbids sandboxes to reach private; set it to public or deny"},
		"denied, none of it":          {"network: {deny: [private]}", "network: {egress: {default: public, allow: ['sandbox:db', 'example.org:443', 192.1.2.0/24]}}", ""},
		"denied, nothing reached":     {"network: {deny: [private, 8.0.0.0/8]}", "network: {egress: {default: deny}}", ""},
		"denied, a prefix around it":  {"network: {deny: [private]}", "network: {egress: {default: deny, allow: ['1.1.1.1/32', '8.0.0.0/5']}}", "f.yaml:7:59: spec.network.egress.allow[1]: the host policy policy.yaml forbids sandboxes to reach private, which 8.0.0.0/5 may lead to; remove it"},
		"denied, by NAT64":            {"network: {deny: [10.0.0.0/8]}", "network: {egress: {default: deny, allow: ['[64:ff9b::/96]:80']}}", "f.yaml:7:45: spec.network.egress.allow[0]: the host policy policy.yaml forbids sandboxes to reach 10.0.0.0/8"},
		"denied, a port of the host":  {"network: {deny: [private]}", "network: {egress: {default: deny, allow: ['host:80']}}", "f.yaml:7:45: spec.network.egress.allow[0]: the host policy policy.yaml forbids sandboxes to reach private, which host:80"},
		"denied, beside a port of it": {"network: {deny: [10.0.0.0/8]}", "network: {egress: {default: public, allow: ['host:80', 192.168.0.0/16]}}", ""},
		"denied, of the internet":     {"network: {deny: [8.8.0.0/16]}", "network: {egress: {default: public}}", "f.yaml:7:22: spec.network.egress.default: the host policy policy.yaml forbids sandboxes to reach 8.8.0.0/16; set it to deny and allow what is needed"},
		"denied, by a name":           {"network: {deny: [8.8.0.0/16]}", "network: {egress: {default: deny, allow: [example.org]}}", "f.yaml:7:45: spec.network.egress.allow[0]: the host policy policy.yaml forbids sandboxes to reach 8.8.0.0/16, which example.org"},
		"denied, a server of names":   {"network: {deny: [10.0.0.0/8]}", "network: {egress: {default: deny}, dns: {servers: [9.9.9.9, 10.0.0.2]}}", "f.yaml:7:63: spec.network.dns.servers[1]: the host policy policy.yaml forbids sandboxes to reach 10.0.0.0/8, of which 10.0.0.2"},
		"denied, without a network":   {"network: {deny: [private]}", "network: {mode: none}", ""},
		"connections":                 {"network: {maxConnections: 100}", "network: {maxConnections: 100}", ""},
		"too many connections":        {"network: {maxConnections: 100}", "network: {maxConnections: 101}", "f.yaml:7:13: spec.network.maxConnections: the host policy policy.yaml allows at most 100, got 101; use less, or have the administrator set network.maxConnections"},
		"connections of the host":     {"", "network: {maxConnections: 1000000}", "f.yaml:7:13: spec.network.maxConnections: the host policy policy.yaml allows at most"},
		"no networks":                 {"network: {bridge: false}", "network: {join: [front]}", "f.yaml:7:3: spec.network.mode: the host policy policy.yaml does not allow networks of sandboxes; use mode: none"},
		"data of a named volume":      {"hostPaths: [{path: /srv, access: readWrite}]", volume("/srv/sandboxctl/state/volumes/v/data", ""), "f.yaml:7:38: spec.volumes[0].hostPath: /srv/sandboxctl/state/volumes/v/data is never shared"},
		"sub path":                    {"hostPaths: [{path: /a/b, access: readWrite}]", volume("/a", ", subPath: b/c"), ""},
		"sub path elsewhere":          {"hostPaths: [{path: /a/b, access: readWrite}]", volume("/a", ", subPath: c"), "f.yaml:7:38: spec.volumes[0].hostPath: the host policy policy.yaml does not allow /a/c"},
		"sub path, own state":         {"hostPaths: [{path: /srv, access: readWrite}]", volume("/srv/sandboxctl", ", subPath: state/volumes/v/data"), "f.yaml:7:38: spec.volumes[0].hostPath: /srv/sandboxctl/state/volumes/v/data is never shared"},
		"no host path":                {"hostPaths: []", volume("/srv/sandboxctl/a", ""), "f.yaml:7:38: spec.volumes[0].hostPath: the host policy policy.yaml does not allow /srv/sandboxctl/a; allowed: none"},
		"root dir":                    {"root: {dirs: [{path: /r, access: readOnly}]}", "root: {dir: /r/x}", ""},
		"root dir elsewhere":          {"root: {dirs: [{path: /r, access: readOnly}]}", "root: {dir: /rr}", "f.yaml:5:10: spec.root.dir: the host policy policy.yaml does not allow /rr; allowed: /r (read-only)"},
		"root dir, written to":        {"root: {dirs: [{path: /r, access: readOnly}]}", "root: {dir: /r/x}\noverlay: none", "f.yaml:5:10: spec.root.dir: the host policy policy.yaml allows /r to be read only; use overlay: memory"},
		"bundle":                      {"root: {bundles: [{path: /b, access: readOnly}]}", "root: {bundle: /b/x}", ""},
		"bundle elsewhere":            {"", "root: {bundle: /b/x}", "f.yaml:5:10: spec.root.bundle: the host policy policy.yaml does not allow /b/x; allowed: /srv/sandboxctl"},
		"image":                       {"", "root: {image: {ref: nginx}}", ""},
		"image by digest":             {"root: {images: [docker.io/library/nginx]}", "root: {image: {ref: nginx, digest: 'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'}}", ""},
		"image of an address":         {"", "root: {image: {ref: 10.0.0.1/a}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow images from 10.0.0.1/a; allowed: any registry with a domain name and no port; use another one, or have the administrator add it to root.images"},
		"image of a port":             {"", "root: {image: {ref: 'registry.example:8080/a'}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow images from registry.example:8080/a"},
		"image of an IPv6 address":    {"", "root: {image: {ref: '[::1]/a'}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow images from [::1]/a"},
		"image of the host":           {"", "root: {image: {ref: 'localhost/a'}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow images from localhost/a"},
		"image of the host, named":    {"root: {images: ['localhost:5000']}", "root: {image: {ref: 'localhost:5000/a/b:c'}}", ""},
		"image of another name":       {"root: {images: [docker.io/library]}", "root: {image: {ref: library2/a}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow images from docker.io/library2/a; allowed: docker.io/library"},
		"no image":                    {"root: {images: []}", "root: {image: {ref: nginx}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow images from docker.io/library/nginx; allowed: none"},
		"archive":                     {"", "root: {image: {ref: 'archive:/srv/sandboxctl/a.tar:x'}}", ""},
		"archive elsewhere":           {"", "root: {image: {ref: 'archive:/srv/a.tar'}}", "f.yaml:5:18: spec.root.image.ref: the host policy policy.yaml does not allow /srv/a.tar; allowed: /srv/sandboxctl; move it there, or have the administrator add it to root.imagePaths"},
		"layout in the state":         {"root: {imagePaths: [{path: /srv, access: readOnly}]}", "root: {image: {ref: 'oci:/srv/sandboxctl/state/x'}}", "f.yaml:5:18: spec.root.image.ref: /srv/sandboxctl/state/x is never shared"},
		"layout":                      {"root: {imagePaths: [{path: /i, access: readOnly}]}", "root: {image: {ref: 'oci:/i/l'}}\noverlay: none", ""},
		"host network":                {"", "network: {mode: host}", "f.yaml:7:13: spec.network.mode: the host policy policy.yaml does not allow the host's network; use none"},
		"host network, allowed":       {"network: {host: true}", "network: {mode: host}", ""},
		"netns":                       {"network: {netns: [shop]}", "network: {mode: netns, netns: shop}", ""},
		"any netns":                   {`network: {netns: ["*"]}`, "network: {mode: netns, netns: shop}", ""},
		"other netns":                 {"network: {netns: [shop]}", "network: {mode: netns, netns: vpn}", `f.yaml:7:26: spec.network.netns: the host policy policy.yaml does not allow the network namespace "vpn"; allowed: shop`},
		"cni":                         {"network: {cni: {networks: [lab]}}", "network: {mode: cni, cni: lab}", ""},
		"any cni":                     {`network: {cni: {networks: ["*"]}}`, "network: {mode: cni, cni: lab}", ""},
		"other cni":                   {"network: {cni: {networks: [lab]}}", "network: {mode: cni, cni: vpn}", `f.yaml:7:24: spec.network.cni: the host policy policy.yaml does not allow the network "vpn" of CNI; allowed: lab`},
		"no cni":                      {"", "network: {mode: cni, cni: lab}", `f.yaml:7:24: spec.network.cni: the host policy policy.yaml does not allow the network "lab" of CNI; allowed: none`},
		"port of cni":                 {"network: {cni: {networks: [lab]}}", "network: {mode: cni, cni: lab, ports: [{containerPort: 80, hostPort: 80}]}", "f.yaml:7:62: spec.network.ports[0].hostPort: the host policy policy.yaml allows ports of the host from 1024, got 80"},
		"plugins are written":         {"network: {cni: {networks: [lab], pluginDirs: [/p/cni]}}\nhostPaths: [{path: /p, access: readWrite}]", volume("/p", ""), "f.yaml:7:38: spec.volumes[0].hostPath: /p can't be written by a sandbox: what is in /p/cni decides which plugins of CNI run as root here"},
		"plugins are read":            {"network: {cni: {networks: [lab], pluginDirs: [/p/cni]}}\nhostPaths: [{path: /p, access: readWrite}]", volume("/p", ", readOnly: true"), ""},
		"plugins nobody uses":         {"network: {cni: {pluginDirs: [/p/cni]}}\nhostPaths: [{path: /p, access: readWrite}]", volume("/p", ""), ""},
		"default capability":          {"", "capabilities: {add: [net_raw, CAP_CHOWN]}", ""},
		"capability":                  {"", "capabilities: {add: [CHOWN, sys_admin]}", "f.yaml:7:31: spec.capabilities.add[1]: the host policy policy.yaml does not allow sys_admin; allowed besides the default ones: none"},
		"capability, allowed":         {"capabilities: [CAP_SYS_ADMIN]", "capabilities: {add: [sys_admin]}", ""},
		"any capability":              {"capabilities: [all]", "capabilities: {add: [BPF]}", ""},
		"direct":                      {"", "fileAccess: direct", "f.yaml:7:3: spec.fileAccess: the host policy policy.yaml does not allow direct; allowed: proxy"},
		"direct, allowed":             {"fileAccess: [proxy, direct]", "fileAccess: direct", ""},
		"proxy, not allowed":          {"fileAccess: [direct]", "fileAccess: proxy", "f.yaml:7:3: spec.fileAccess: the host policy policy.yaml does not allow proxy; allowed: direct"},
		"platform":                    {"platforms: []", "platform: systrap", "f.yaml:7:3: spec.platform: the host policy policy.yaml does not allow systrap; allowed: none"},
		"root user by default":        {"rootUser: false", "", "f.yaml:4:1: spec.user: the host policy policy.yaml does not allow applications to run as root"},
		"root user":                   {"rootUser: false", "user: {uid: 0, gid: 5}", "f.yaml:7:3: spec.user: the host policy policy.yaml does not allow applications to run as root"},
		"other user":                  {"rootUser: false", "user: {uid: 5, gid: 0}", ""},
		"no id mappings":              {"minHostID: 100000", "", "f.yaml:4:1: spec.idMappings: is missing: the host policy policy.yaml wants sandboxes to act on files as ids of the host from 100000"},
		"low id":                      {"minHostID: 100000", "idMappings: {uids: [{containerID: 0, hostID: 100000, size: 9}], gids: [{containerID: 0, hostID: 99999, size: 9}]}", "f.yaml:7:91: spec.idMappings.gids[0].hostID: the host policy policy.yaml allows ids of the host from 100000, got 99999"},
		"id mappings":                 {"minHostID: 100000", "idMappings: {uids: [{containerID: 0, hostID: 100000, size: 9}], gids: [{containerID: 0, hostID: 100000, size: 9}]}", ""},
		"no limit":                    {"maxResources: {memory: 1Gi}", "", ""},
		"limit":                       {"maxResources: {memory: 1Gi, cpu: 2, pids: 100}", "resources: {memory: 1Gi, cpu: 2, pids: 100}", ""},
		"memory":                      {"maxResources: {memory: 1Gi}", "resources: {memory: 1025Mi}", "f.yaml:7:15: spec.resources.memory: the host policy policy.yaml allows at most 1Gi; ask for less"},
		"cpu":                         {"maxResources: {cpu: 1500m}", "resources: {cpu: 2}", "f.yaml:7:15: spec.resources.cpu: the host policy policy.yaml allows at most 1500m; ask for less"},
		"pids":                        {"maxResources: {pids: 100}", "resources: {pids: 101}", "f.yaml:7:15: spec.resources.pids: the host policy policy.yaml allows at most 100; ask for less"},
		"on the disk":                 {"", "volumes: [{name: a, mountPath: /a, emptyDir: {size: 15Gi}}, {name: b, mountPath: /b, emptyDir: {}}]", ""},
		"too much on the disk":        {"", "volumes: [{name: a, mountPath: /a, emptyDir: {size: 16385Mi}}]", "f.yaml:7:38: spec.volumes[0].emptyDir: the host policy policy.yaml allows a sandbox at most 16Gi on the disk, and with this it has more; ask for less"},
		"together too much":           {"maxDiskSize: 3Gi", "volumes: [{name: a, mountPath: /a, emptyDir: {}}, {name: b, mountPath: /b, emptyDir: {size: 2Gi}}, {name: c, mountPath: /c, emptyDir: {size: 1Mi}}]", "f.yaml:7:127: spec.volumes[2].emptyDir: the host policy policy.yaml allows a sandbox at most 3Gi on the disk"},
		"sizes beyond all numbers":    {"", "volumes: [{name: a, mountPath: /a, emptyDir: {}}, {name: b, mountPath: /b, emptyDir: {size: 9223372036854775807}}]", "f.yaml:7:78: spec.volumes[1].emptyDir: the host policy policy.yaml allows a sandbox at most 16Gi"},
		"default on the disk":         {"defaultDiskSize: 2Gi\nmaxDiskSize: 3Gi", "volumes: [{name: a, mountPath: /a, emptyDir: {}}, {name: b, mountPath: /b, emptyDir: {}}]", "f.yaml:7:78: spec.volumes[1].emptyDir: the host policy policy.yaml allows a sandbox at most 3Gi"},
		"nothing on the disk":         {"maxDiskSize: 0", "volumes: [{name: a, mountPath: /a, emptyDir: {}}]", "f.yaml:7:38: spec.volumes[0].emptyDir: the host policy policy.yaml allows nothing on the disk; use medium: memory, or have the administrator set maxDiskSize"},
		"no overlay on the disk":      {"maxDiskSize: 0", "overlay: disk", "f.yaml:7:3: spec.overlay: the host policy policy.yaml allows nothing on the disk; use overlay: memory"},
		"in memory, of any size":      {"maxDiskSize: 0", "volumes: [{name: a, mountPath: /a, emptyDir: {medium: memory, size: 99Ti}}]", ""},
	} {
		text := desiredtest.Minimal
		switch root, rest, _ := strings.Cut(c.spec, "\n"); {
		case strings.HasPrefix(root, "root: {bundle"):
			text = strings.Replace(desiredtest.Minimal, "root: {host: {}}\n  command: [sh]", root, 1)
		case strings.HasPrefix(root, "root:"):
			text = strings.Replace(desiredtest.Minimal, "root: {host: {}}", root, 1)
			if rest != "" {
				text += "  " + rest + "\n"
			}
		case root != "":
			text = desiredtest.With(root)
		}
		docs, ps := (desired.Decoder{Policy: policyOf(t, c.policy)}).Decode("f.yaml", []byte(text))
		switch {
		case c.want == "":
			if len(ps) > 0 || docs[0].Sandbox == nil {
				t.Errorf("%s: %v", name, ps)
			}
		case len(ps) != 1 || ps[0].Reason != desired.ReasonPolicyDenied || docs[0].Sandbox != nil || ps[0].Name != "web":
			t.Errorf("%s: %+v", name, ps)
		case !strings.HasPrefix(ps[0].Error(), c.want):
			t.Errorf("%s: %s\nexpected %s", name, ps[0], c.want)
		}
		// Without a policy nothing of it is a problem.
		if _, ps := desired.Decode("f.yaml", []byte(text)); len(ps) > 0 {
			t.Errorf("%s, without a policy: %v", name, ps)
		}
	}
}

// Everything is told at once, also beside what is wrong.
func TestPolicyCheckAll(t *testing.T) {
	t.Parallel()
	p := policyOf(t)
	text := desiredtest.With("fileAccess: direct", "network: {mode: host}", "volumes: [{name: a, mountPath: /a, hostPath: /home/x}, {name: A, mountPath: /b, hostPath: /home/y}]", "resources: {cpus: 1}")
	_, ps := (desired.Decoder{Policy: p}).Decode("f.yaml", []byte(text))
	denied, other := 0, 0
	for _, p := range ps {
		if p.Reason == desired.ReasonPolicyDenied {
			denied++
		} else {
			other++
		}
	}
	if denied != 4 || other != 2 {
		t.Errorf("%d denied, %d other: %v", denied, other, ps)
	}
}

func TestDecodePolicy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                   "p:1:1: expected one document of kind HostPolicy, got 0",
		"kind: HostPolicy\n": "p:1:1: apiVersion: is missing",
		"apiVersion: sandboxctl.dev/v2\nkind: HostPolicy\n": `p:1:13: apiVersion: expected sandboxctl.dev/v1alpha1, got "sandboxctl.dev/v2"`,
		desiredtest.Minimal:                                                                          `p:2:7: kind: expected HostPolicy, got "Sandbox"`,
		policyHead + "---\n" + policyHead:                                                            "p:3:1: expected one document of kind HostPolicy, got 2",
		policyHead + "hostPath: []\n":                                                                `p:3:1: hostPath: unknown field "hostPath"; did you mean "hostPaths"?`,
		policyHead + "netns: []\n":                                                                   `p:3:1: netns: unknown field "netns" here; it belongs to network`,
		policyHead + "hostPaths: [{path: /a}]\n":                                                     "p:3:13: hostPaths[0].access: is missing: expected readOnly or readWrite",
		policyHead + "hostPaths: [{path: /a, access: rw}]\n":                                         `p:3:24: hostPaths[0].access: expected one of readOnly, readWrite, got "rw"`,
		policyHead + "clients: {group: 'a b'}\n":                                                     `p:3:11: clients.group: expected the name or the number of a group, got "a b"`,
		policyHead + "clients: {maxRuns: 101}\n":                                                     "p:3:11: clients.maxRuns: expected 1 to 100, got 101",
		policyHead + "clients: {maxTime: 10ms}\n":                                                    "p:3:11: clients.maxTime: expected at least 1s, got 10ms",
		policyHead + "clients: {networks: [host]}\n":                                                 `p:3:22: clients.networks[0]: expected the name of a network of sandboxes, got "host"`,
		policyHead + "clients: {volumes: [/srv]}\n":                                                  `p:3:21: clients.volumes[0]: expected the name of a volume, got "/srv"`,
		policyHead + "clients: {images: ['https://ghcr.io']}\n":                                      `p:3:20: clients.images[0]: expected a registry such as ghcr.io, or the beginning of a name such as docker.io/library, got "https://ghcr.io"`,
		policyHead + "clients: {members: [a]}\n":                                                     `p:3:11: clients.members: unknown field "members"`,
		policyHead + "hostPaths: [{path: a, access: readOnly}]\n":                                    `p:3:14: hostPaths[0].path: expected an absolute path, got "a"`,
		policyHead + "hostPaths: [{path: /a, access: readOnly, changeOwner: true}]\n":                "p:3:42: hostPaths[0].changeOwner: is for hostPaths with access: readWrite",
		policyHead + "root: {dirs: [{path: /a, access: readWrite, changeOwner: true}]}\n":            "p:3:45: root.dirs[0].changeOwner: is for hostPaths with access: readWrite",
		policyHead + "hostPaths: [{path: /a, access: readWrite, changeOwner: maybe}]\n":              `p:3:56: hostPaths[0].changeOwner: expected true or false, got "maybe"`,
		policyHead + "hostPaths: [{path: /, access: readOnly}]\n":                                    "p:3:14: hostPaths[0].path: the whole host can't be allowed",
		policyHead + "hostPaths: [{path: /a/../b, access: readOnly}]\n":                              `p:3:14: hostPaths[0].path: expected a path without`,
		policyHead + "root: {dirs: [{path: /a, access: readOnly}, {path: /a, access: readWrite}]}\n": "p:3:46: root.dirs[1].path: /a is given twice",
		policyHead + "hostPaths: [{path: /a, access: readWrite}, {path: /a/b, access: readOnly}]\n":  "p:3:57: hostPaths[1].access: /a/b is below /a, which allows readWrite",
		policyHead + "network: {netns: [a/b]}\n":                                                     "p:3:19: network.netns[0]: expected the name of a network namespace",
		policyHead + "network: {cni: {networks: [a/b]}}\n":                                           "p:3:28: network.cni.networks[0]: expected the name of a network of CNI",
		policyHead + "network: {cni: {pluginDirs: [bin]}}\n":                                         `p:3:30: network.cni.pluginDirs[0]: expected an absolute path, got "bin"`,
		policyHead + "network: {cni: {configDir: a}}\n":                                              `p:3:17: network.cni.configDir: expected an absolute path, got "a"`,
		policyHead + "network: {cni: {timeout: 1ms}}\n":                                              "p:3:17: network.cni.timeout: expected at least 1s, got 1ms",
		policyHead + "network: {cni: {timeout: 1h}}\n":                                               "p:3:17: network.cni.timeout: expected at most 10m0s, got 1h0m0s",
		policyHead + "network: {cni: [lab]}\n":                                                       "p:3:16: network.cni: expected an object, got a list; for example cni: {networks: [podman]}",
		policyHead + "capabilities: [SYS_ADMN]\n":                                                    `p:3:16: capabilities[0]: unknown capability "SYS_ADMN"; did you mean "SYS_ADMIN"?`,
		policyHead + "platforms: [kvmm]\n":                                                           `p:3:13: platforms[0]: expected systrap, got "kvmm"`,
		policyHead + "fileAccess: [none]\n":                                                          `p:3:14: fileAccess[0]: expected one of proxy, direct, got "none"`,
		policyHead + "maxResources: {memory: 1Mi}\n":                                                 "p:3:16: maxResources.memory: expected at least 32Mi",
		policyHead + "maxSandboxes: -1\n":                                                            "p:3:1: maxSandboxes: expected 0 (any number) or more, got -1",
		policyHead + "rootUser: yes\n":                                                               `p:3:11: rootUser: expected true or false, got "yes"`,
		policyHead + "rootUser: &a true\n":                                                           "p:3:11: anchors and aliases are not allowed",
		policyHead + "rootUser: [true\n":                                                             "p:2:1: not YAML",
		policyHead + "\x00":                                                                          "p:3:1: expected UTF-8 text",
	} {
		p, problems := Decode("p", []byte(text))
		if p != nil || len(problems) == 0 || !strings.HasPrefix(problems[0].Error(), want) {
			t.Errorf("%q: %v\nexpected %s", text, problems, want)
		}
	}
	// What is left out is as it is without a file; what is empty is empty.
	def, some := Default(), policyOf(t, "capabilities: [BPF]")
	if len(some.HostPaths) != 1 || some.HostPaths[0] != def.HostPaths[0] || !*some.Root.Host || !*some.RootUser || len(some.Root.Dirs) != 1 || len(some.Platforms) != 1 || len(some.FileAccess) != 1 {
		t.Errorf("%+v", some)
	}
	if none := policyOf(t, "hostPaths: []", "root: {dirs: [], bundles: []}", "platforms: []", "fileAccess: []"); len(none.HostPaths)+len(none.Root.Dirs)+len(none.Root.Bundles)+len(none.Platforms)+len(none.FileAccess) != 0 {
		t.Errorf("%+v", none)
	}
	if errs := def.Validate(); len(errs) > 0 {
		t.Error(errs)
	}
}

// A policy without networks has no Network documents either.
func TestPolicyNetworkDocument(t *testing.T) {
	t.Parallel()
	text := "apiVersion: " + desired.APIVersion + "\nkind: Network\nmetadata: {name: front}\nspec: {subnet: 10.44.0.0/24}\n"
	for policy, want := range map[string]string{
		"":                         "",
		"network: {netns: ['*']}":  "",
		"network: {bridge: false}": "f.yaml:2:1: kind: the host policy policy.yaml does not allow networks of sandboxes",
	} {
		docs, ps := (desired.Decoder{Policy: policyOf(t, policy)}).Decode("f.yaml", []byte(text))
		switch {
		case want == "":
			if len(ps) > 0 || docs[0].Network == nil {
				t.Errorf("%s: %v", policy, ps)
			}
		case len(ps) != 1 || ps[0].Reason != desired.ReasonPolicyDenied || docs[0].Valid() || ps[0].Name != "network/front" || !strings.HasPrefix(ps[0].Error(), want):
			t.Errorf("%s: %+v", policy, ps)
		}
	}
}

// Subnets are chosen from private addresses, and there is room for one.
func TestPolicyPool(t *testing.T) {
	t.Parallel()
	v4, v6 := policyOf(t).Network.Pools()
	if len(v4) != 1 || len(v6) != 1 || !v4[0].Addr().IsPrivate() || !v6[0].Addr().IsPrivate() {
		t.Errorf("built-in: %v, %v", v4, v6)
	}
	for line, want := range map[string]string{
		"network: {pool: []}":                        "",
		"network: {pool: [10.0.0.0/8, 'fd00::/48']}": "",
		"network: {pool: [10.0.0.0/25]}":             "network.pool[0]: expected /8 to /24, of which each network gets a /20, or a /24 if it is smaller than a /16, got 10.0.0.0/25",
		"network: {pool: ['fd00::/65']}":             "network.pool[0]: expected /8 to /64",
		"network: {pool: [192.0.2.0/24]}":            "network.pool[0]: expected private addresses",
		"network: {pool: [10.0.0.0/8, 10.1.0.0/16]}": "network.pool[1]: overlaps with another one",
		"network: {pool: [x]}":                       "network.pool[0]: expected a prefix",
		"network: {maxConnections: 15}":              "network.maxConnections: expected a number from 16 to 1000000, got 15",
		"network: {maxConnections: -1}":              "network.maxConnections: expected a number from 16 to 1000000, got -1",
		"network: {deny: [privat]}":                  "network.deny[0]: expected private, or a prefix such as 10.0.0.0/8",
		"network: {ports: {min: -1}}":                "network.ports.min: expected a port from 1 to 65535",
		"network: {ports: {addresses: [localhost]}}": "network.ports.addresses[0]: expected an address of the host",
	} {
		_, ps := Decode("policy.yaml", []byte(policyHead+line+"\n"))
		if got := fmt.Sprint(ps); (want == "") != (len(ps) == 0) || !strings.Contains(got, want) {
			t.Errorf("%s: %s", line, got)
		}
	}
}

// A policy without named volumes has no Volume documents either.
func TestPolicyVolumeDocument(t *testing.T) {
	t.Parallel()
	text := "apiVersion: " + desired.APIVersion + "\nkind: Volume\nmetadata: {name: v}\n"
	for policy, want := range map[string]string{
		"":                     "",
		"namedVolumes: true":   "",
		"rootUser: false":      "",
		"namedVolumes: false":  "f.yaml:2:1: kind: the host policy policy.yaml does not allow named volumes; use hostPath",
		"namedVolumes: false ": "f.yaml:2:1: kind: the host policy",
	} {
		docs, ps := (desired.Decoder{Policy: policyOf(t, policy)}).Decode("f.yaml", []byte(text))
		switch {
		case want == "":
			if len(ps) > 0 || docs[0].Volume == nil {
				t.Errorf("%s: %v", policy, ps)
			}
		case len(ps) != 1 || ps[0].Reason != desired.ReasonPolicyDenied || docs[0].Valid() || ps[0].Name != "volume/v" || !strings.HasPrefix(ps[0].Error(), want):
			t.Errorf("%s: %+v", policy, ps)
		}
	}
}
