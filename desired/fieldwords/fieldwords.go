// SPDX-License-Identifier: Apache-2.0

// Package fieldwords has words about fields of manifests for messages: what other programs call
// them, and what values of them look like.
package fieldwords

// Foreign are what Compose and Kubernetes call fields of the spec of a sandbox, and what to write
// here.
func Foreign() map[string]string {
	return map[string]string{
		"env_file": "envFrom: [{file: /srv/sandboxctl/app.env}]", "environment": "env: [{name: KEY, value: text}]", "entrypoint": "command",
		"containers": "command, args, env and volumes of the one program here", "volumeMounts": "volumes: [{name: data, mountPath: /data, hostPath: /srv/sandboxctl/data}]",
		"restart": "restartPolicy: Always", "securityContext": "user: {uid: 1000, gid: 1000} and capabilities: {drop: [ALL]}",
		"cap_add": "capabilities: {add: [NET_ADMIN]}", "cap_drop": "capabilities: {drop: [ALL]}", "hostNetwork": "network: {mode: host}", "network_mode": "network: {mode: host}",
		"mem_limit": "resources: {memory: 256Mi}", "cpus": "resources: {cpu: 500m}", "tmpfs": "volumes: [{name: tmp, mountPath: /tmp, tmpfs: {}}]",
		"stop_grace_period": "terminationGracePeriod: 10s", "tz": "timezone: Europe/Berlin",
	}
}

// Lists are examples of lists and maps of plain values, and of paths, by field.
func Lists() map[string]string {
	return map[string]string{
		"command": `[sleep, "1"]`,
		"args":    `["-v", "1"]`,
		"groups":  `[1000, 1001]`,
		"add":     `[NET_ADMIN]`,
		"drop":    `[ALL]`,
		"options": `[noexec, nodev]`,
		"data":    `{app.conf: text}`,
		"files":   `{token: /srv/sandboxctl/token}`,

		"hostPath":   `/srv/sandboxctl/data`,
		"dir":        `/srv/sandboxctl/root`,
		"binaryData": `{logo.png: iVBORw0KGgo=}`,
		"stringData": `{TOKEN: text}`,

		"labels":      `{app: web}`,
		"annotations": `{note: text}`,
	}
}
