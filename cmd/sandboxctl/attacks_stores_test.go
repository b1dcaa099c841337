// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sandboxctl.dev/desired"
)

// stores: images, named volumes and documents of other places than those that are meant.
func (l *attackList) stores() {
	bad := map[string]string{
		"up": "..", "up and on": "../x", "up in the middle": "a/../../b", "up in the end": "a/..", "NUL": "a\x00b", "newline": "a\nb", "absolute": "/a", "two slashes": "a//b", "slash in the end": "a/",
		"name too long": strings.Repeat("a", 256), "here": ".", "here and on": "./a",
	}
	maps.Copy(bad, obeyedStrings)
	for name, s := range bad {
		q := quote(s)
		l.spec("volume in the state, "+name, "spec.volumes[0].volume.name", "volumes: [{name: v, mountPath: /mnt, volume: {name: "+q+"}}]")
		l.spec("subPath, "+name, "spec.volumes[0].subPath", "volumes: [{name: v, mountPath: /mnt, volume: {name: a}, subPath: "+q+"}]")
		l.spec("file of a config, "+name, "spec.volumes[0].config.data", "volumes: [{name: v, mountPath: /mnt, config: {data: {"+q+": x}}}]")
		l.spec("file of an item, "+name, "spec.volumes[0].config.items[0].path", "volumes: [{name: v, mountPath: /mnt, config: {name: a, items: [{key: k, path: "+q+"}]}}]")
		l.spec("key of an item, "+name, "spec.volumes[0].secret.items[0].key", "volumes: [{name: v, mountPath: /mnt, secret: {name: a, items: [{path: k, key: "+q+"}]}}]")
		l.spec("config, "+name, "spec.volumes[0].config.name", "volumes: [{name: v, mountPath: /mnt, config: {name: "+q+"}}]")
		l.spec("variables of a secret, "+name, "spec.envFrom[0].secret", "envFrom: [{secret: {name: "+q+"}}]")
		for _, kind := range []string{"Config", "Secret"} {
			data := map[string]string{"Config": "data", "Secret": "stringData"}[kind]
			head := []string{"apiVersion: " + desired.APIVersion, "kind: " + kind, "metadata:", "  name: " + attackNumber}
			l.add(kind+" with the key, "+name, data, 5, append(slices.Clone(head), data+": {"+q+": x}")...)
			l.add(kind+" with the name, "+name, "metadata.name", 4, append(slices.Clone(head[:3]), "  name: "+q, data+": {a: x}")...)
			l.add(kind+" with files, "+name, "files", 5, append(slices.Clone(head), "files: {"+q+": /etc/hostname}")...)
		}
	}
	for _, p := range []string{"/etc/shadow", "/proc/1/environ", "/proc/self/environ", "/root/.ssh/id_rsa", "/dev/fd/3", "/var/lib/sandboxctl/daemon.json", "/etc/sandboxctl/registries.yaml"} {
		l.add("Config with the file "+p, "files", 5, "apiVersion: "+desired.APIVersion, "kind: Config", "metadata:", "  name: "+attackNumber, "files: {a: "+p+"}")
		l.spec("secret of "+p, "spec.volumes[0].secret.files", "volumes: [{name: v, mountPath: /mnt, secret: {files: {a: "+p+"}}}]")
		l.spec("variables of "+p, "spec.envFrom[0].file", "envFrom: [{file: "+p+"}]")
	}
	for name, d := range map[string]string{
		"..data": "{..data: x}", "hidden by the kubelet's": "{..2026_01_02: x}", "no base64": "{a: '%%%'}", "too long a key": "{" + strings.Repeat("k", 254) + ": x}", "a list": "[a]", "a number": "{a: 1}",
	} {
		l.add("Secret with data, "+name, "data", 5, "apiVersion: "+desired.APIVersion, "kind: Secret", "metadata:", "  name: "+attackNumber, "data: "+d)
	}
	many := make([]string, 501)
	for i := range many {
		many[i] = fmt.Sprintf("k%d: x", i)
	}
	l.add("Config with many keys", "expected at most 500 keys", 0, "apiVersion: "+desired.APIVersion, "kind: Config", "metadata:", "  name: "+attackNumber, "data: {"+strings.Join(many, ", ")+"}")
	for name, ref := range map[string]string{
		"empty": "", "up": "../x", "path": "/etc", "option": "-rf", "space": "a b", "url": "http://example.org/x", "file": "file:///etc/passwd", "upper case": "example.org/WEB", "digest": "web@sha256:00",
		"layout of the host": "oci:/etc:v1", "layout up": "oci:/srv/../etc:v1", "layout of here": "oci:layout:v1", "archive of the host": "archive:/etc/shadow", "archive of a process": "archive:/proc/1/root/x.tar",
		"archive of a device": "archive:/dev/zero", "address": "127.0.0.1/x", "address and port": "10.0.0.1:5000/x", "metadata": "169.254.169.254/latest", "localhost": "localhost/x", "port": "example.org:22/x",
		"another tool's": "docker-daemon:web", "credentials": "user:pass@example.org/x", "too long": "example.org/" + strings.Repeat("a/", 2500) + "a",
	} {
		l.line("reference, "+name, "spec.root.image", 6, "  root: {image: {pullPolicy: Never, ref: "+quote(ref)+"}}")
	}
	for name, s := range obeyedStrings {
		l.line("reference, "+name, "spec.root.image", 6, "  root: {image: {pullPolicy: Never, ref: "+quote("example.org/"+s)+"}}")
	}
	for name, o := range map[string]string{"nobody": "{uid: 4294967295}", "negative": "{gid: -1}", "nothing": "{}", "mode": `{mode: "77777"}`, "mode of words": `{mode: "u+s"}`, "when": "{uid: 1, when: Always}"} {
		l.spec("ownership, "+name, "spec.volumes[0].ownership", "volumes: [{name: v, mountPath: /mnt, volume: {name: a}, ownership: "+o+"}]")
	}
	for name, v := range map[string]string{
		"one place": "{name: a, mountPath: /x, tmpfs: {}}, {name: b, mountPath: /x, config: {name: c}}", "one name": "{name: a, mountPath: /x, tmpfs: {}}, {name: a, mountPath: /y, config: {name: c}}",
	} {
		l.spec("two volumes, "+name, "spec.volumes[1]", "volumes: ["+v+"]")
	}
	l.spec("a file in a file", "spec.volumes[0].config.", "volumes: [{name: v, mountPath: /mnt, config: {data: {a: x, a/b: y}}}]")
	l.spec("two sources", "spec.volumes[0]", "volumes: [{name: v, mountPath: /mnt, volume: {name: a}, hostPath: /srv}]")
	l.spec("ownership of a path", "spec.volumes[0].ownership", "volumes: [{name: v, mountPath: /mnt, tmpfs: {}, ownership: {uid: 1}}]")
}
