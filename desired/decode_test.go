// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/desired/networks"

	"pgregory.net/rapid"

	"sandboxctl.dev/desired/desiredtest"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

const minimal = desiredtest.Minimal

func with(lines ...string) string { return desiredtest.With(lines...) }

func problems(t *testing.T, text string) string {
	t.Helper()
	docs, ps := Decode("f.yaml", []byte(text))
	var lines []string
	for _, p := range ps {
		lines = append(lines, p.Error())
	}
	if len(ps) == 0 {
		for _, d := range docs {
			if d.Sandbox == nil {
				t.Errorf("no sandbox and no problem:\n%s", text)
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestDecodeMinimal(t *testing.T) {
	t.Parallel()
	docs, ps := Decode("f.yaml", []byte(minimal))
	if len(ps) > 0 || len(docs) != 1 {
		t.Fatalf("%v %v", docs, ps)
	}
	s := docs[0].Sandbox.Spec
	if s.Overlay != OverlayMemory || s.Platform != PlatformSystrap || s.FileAccess != FileAccessProxy || s.Network.Mode != networks.None ||
		s.RestartPolicy != RestartAlways || s.StopSignal != "SIGTERM" || time.Duration(*s.TerminationGracePeriod) != 10*time.Second ||
		time.Duration(*s.Backoff.Initial) != time.Second || s.Hostname != "web" || s.WorkingDir != "/" {
		t.Errorf("defaults: %+v", s)
	}
}

// Each mistake is told with its place, what was expected, and what may have
// been meant.
func TestDecodeProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"empty file":          {"", "f.yaml:1:1: the file is empty"},
		"only a comment":      {"# nothing\n", "f.yaml:1:1: the file is empty"},
		"cut at a separator":  {minimal + "---\n", "f.yaml:7:1: the document is empty"},
		"not YAML":            {"a: [\n", "f.yaml:"},
		"text":                {"apiVersion\n", "f.yaml:1:1: expected a manifest"},
		"kind":                {"apiVersion: sandboxctl.dev/v1alpha1\nkind: Pod\n", `f.yaml:2:7: kind: expected one of Sandbox, Config, Secret, Volume, Network, SandboxPool, SandboxClaim, got "Pod"`},
		"apiVersion":          {"apiVersion: v1\nkind: Sandbox\n", `f.yaml:1:13: apiVersion: expected sandboxctl.dev/v1alpha1, got "v1"`},
		"missing spec":        {"apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: a}\n", "f.yaml:1:1: spec: is missing"},
		"status":              {minimal + "status: {}\n", "f.yaml:7:1: status: status is not for a manifest"},
		"misspelt":            {with("comand: [a]"), `f.yaml:7:3: spec.comand: unknown field "comand"; did you mean "command"?`},
		"another case":        {with("Hostname: x"), `f.yaml:7:3: spec.Hostname: unknown field "Hostname"; did you mean "hostname"?`},
		"elsewhere":           {strings.Replace(minimal, "{name: web}", "{name: web, restartPolicy: Never}", 1), `metadata.restartPolicy: unknown field "restartPolicy" here; it belongs to spec`},
		"of another object":   {strings.Replace(minimal, "root: {host: {}}", "root: {path: /srv/web}", 1), `expected here is one of bundle, dir, host, image`},
		"twice":               {with("hostname: a", "hostname: b"), "f.yaml:8:3: spec.hostname: is given twice, first in line 7"},
		"boolean word":        {with("hostname: no"), `f.yaml:7:13: spec.hostname: expected a string, got "no"; quote it: "no"`},
		"number":              {with("env: [{name: A, value: 1.10}]"), `f.yaml:7:26: spec.env[0].value: expected a string, got the number 1.10; quote it`},
		"null":                {with("hostname:"), "spec.hostname: expected a string, got nothing"},
		"null root":           {strings.Replace(minimal, "{host: {}}", "{host: }", 1), "spec.root.host: expected an object ({} for an empty one), got nothing"},
		"direct ids":          {with("fileAccess: direct", "idMappings: {uids: [{containerID: 0, hostID: 1, size: 1}], gids: [{containerID: 0, hostID: 1, size: 1}]}"), "use proxy"},
		"no ids":              {with("idMappings: {uids: [], gids: [{containerID: 0, hostID: 1, size: 1}]}"), "spec.idMappings.uids: expected 1 to 340 ranges"},
		"no root id":          {with("idMappings: {uids: [{containerID: 1, hostID: 1, size: 1}], gids: [{containerID: 0, hostID: 1, size: 1}]}"), "spec.idMappings.uids: 0 must be mapped"},
		"ids overlap":         {with("idMappings: {uids: [{containerID: 0, hostID: 1, size: 9}, {containerID: 20, hostID: 3, size: 1}], gids: [{containerID: 0, hostID: 1, size: 1}]}"), "spec.idMappings.uids[1]: overlaps with spec.idMappings.uids[0]"},
		"no such id":          {with("idMappings: {uids: [{containerID: 0, hostID: 4294967295, size: 1}], gids: [{containerID: 0, hostID: 1, size: 1}]}"), "spec.idMappings.uids[0]: expected a size of at least 1"},
		"netns path":          {with("network: {mode: netns, netns: /run/netns/shop}"), "spec.network.netns: expected the name of a network namespace"},
		"netns up":            {with("network: {mode: netns, netns: ..}"), "spec.network.netns: expected the name"},
		"netns without mode":  {with("network: {netns: shop}"), "is for network.mode netns only"},
		"yes":                 {with("suspend: yes"), "spec.suspend: expected true or false"},
		"octal":               {with("user: {uid: 0755, gid: 0}"), "spec.user.uid: expected a whole number"},
		"negative":            {with("user: {uid: -1, gid: 0}"), "spec.user.uid: expected a whole number from 0 to 4294967295, got -1"},
		"duration":            {with("terminationGracePeriod: 10"), `spec.terminationGracePeriod: expected a duration such as "10s", got 10`},
		"quantity":            {with("resources: {memory: much}"), `spec.resources.memory: expected an amount such as "256Mi" or "1G", got "much"`},
		"anchor":              {with("hostname: &a web"), "f.yaml:7:13: anchors and aliases are not allowed"},
		"alias":               {"kind: Sandbox\na: &a b\nc: *a\n", "anchors and aliases"},
		"merge":               {with("<<: {a: b}"), "expected a field name"},
		"tag":                 {with("hostname: !!str 5"), "tags such as !!str are not allowed"},
		"directive":           {"%YAML 1.1\n---\n" + minimal, "directives"},
		"BOM":                 {"\xef\xbb\xbf" + minimal, "byte order mark"},
		"NUL":                 {minimal + "\x00", "f.yaml:7:1: expected UTF-8 text without control characters, got byte 0x00"},
		"not UTF-8":           {minimal + "# \xff\n", "f.yaml:7:3: expected UTF-8"},
		"enumeration":         {with("restartPolicy: always"), `spec.restartPolicy: expected one of Always, OnFailure, Never, got "always"; did you mean "Always"?`},
		"two roots":           {strings.Replace(minimal, "{host: {}}", "{host: {}, dir: /x}", 1), "f.yaml:5:3: spec.root: expected exactly one of host, dir, bundle, image, got 2"},
		"relative path":       {strings.Replace(minimal, "host: {}", "dir: srv/x", 1), `spec.root.dir: expected an absolute path, got "srv/x"`},
		"dot dot":             {strings.Replace(minimal, "host: {}", "dir: /srv/../etc", 1), `did you mean "/etc"?`},
		"volume in proc":      {with("volumes: [{name: a, mountPath: /proc/x, tmpfs: {}}]"), "spec.volumes[0].mountPath: /proc is the sandbox's own"},
		"option":              {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, options: [sync]}]"), `spec.volumes[0].options[0]: expected one of noexec, nosuid, nodev, noatime, got "sync"`},
		"option misspelt":     {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, options: [NoExec]}]"), `did you mean "noexec"?`},
		"option ro":           {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, options: [nodev, ro]}]"), "spec.volumes[0].options[1]: use readOnly: true or false"},
		"option twice":        {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, options: [nodev, nodev]}]"), "spec.volumes[0].options[1]: nodev is given twice"},
		"options as text":     {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, options: 'noexec,nodev'}]"), "spec.volumes[0].options: expected a list"},
		"whole host":          {with("volumes: [{name: a, mountPath: /x, hostPath: /}]"), "the whole host is not a volume"},
		"volumes clash":       {with("volumes: [{name: a, mountPath: /x, tmpfs: {}}, {name: a, mountPath: /x, tmpfs: {}}]"), "spec.volumes[1].mountPath: two volumes are mounted at /x"},
		"volume, no name":     {with("volumes: [{mountPath: /x, volume: {}}]"), "spec.volumes[0].volume.name: is missing"},
		"volume, a path":      {with("volumes: [{mountPath: /x, volume: {name: ../a}}]"), `spec.volumes[0].volume.name: expected a DNS label (at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit), got "../a"`},
		"volume, dots":        {with("volumes: [{name: a, mountPath: /x, volume: {name: ..}}]"), "spec.volumes[0].volume.name: expected a DNS label"},
		"volume, capitals":    {with("volumes: [{name: a, mountPath: /x, volume: {name: A}}]"), "spec.volumes[0].volume.name: expected a DNS label"},
		"volume as text":      {with("volumes: [{name: a, mountPath: /x, volume: data}]"), `spec.volumes[0].volume: expected an object, got "data"; for example volume: {name: data}`},
		"volume and path":     {with("volumes: [{name: a, mountPath: /x, volume: {name: a}, hostPath: /a}]"), "spec.volumes[0]: expected exactly one of hostPath, volume, emptyDir, tmpfs, config, secret, got 2"},
		"volume twice":        {with("volumes: [{mountPath: /x, volume: {name: a}}, {mountPath: /y, volume: {name: a}}]"), `spec.volumes[1].name: volume "a" is given twice`},
		"volume size":         {with("volumes: [{mountPath: /x, volume: {name: a, size: 1}}]"), "volumes[0].volume.size: expected at least 64Ki"},
		"claim":               {with("volumes: [{mountPath: /x, persistentVolumeClaim: {claimName: a}}]"), "use volume: {name: data}"},
		"sub path up":         {with("volumes: [{mountPath: /x, volume: {name: a}, subPath: a/../..}]"), `spec.volumes[0].subPath: expected a relative path without`},
		"sub path, absolute":  {with("volumes: [{name: a, mountPath: /x, hostPath: /a, subPath: /etc}]"), `spec.volumes[0].subPath: expected a relative path`},
		"sub path, itself":    {with("volumes: [{name: a, mountPath: /x, hostPath: /a, subPath: .}]"), `spec.volumes[0].subPath: expected a relative path`},
		"sub path, slash":     {with("volumes: [{name: a, mountPath: /x, hostPath: /a, subPath: b/}]"), `spec.volumes[0].subPath: expected a relative path`},
		"sub path of tmpfs":   {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, subPath: b}]"), "spec.volumes[0].subPath: is for a hostPath, a named volume, config and secret"},
		"volume without name": {with("volumes: [{mountPath: /x, tmpfs: {}}]"), "spec.volumes[0].name: expected a DNS label"},
		"owner of a tmpfs":    {with("volumes: [{name: a, mountPath: /x, tmpfs: {}, ownership: {uid: 1}}]"), "spec.volumes[0].ownership: is for a hostPath, a named volume, config and secret"},
		"owner of nothing":    {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {}}]"), "spec.volumes[0].ownership: expected at least one of uid, gid, mode"},
		"owner by name":       {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {uid: postgres}}]"), "spec.volumes[0].ownership.uid: expected"},
		"negative owner":      {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {uid: -1}}]"), "spec.volumes[0].ownership.uid: expected"},
		"owner that is none":  {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {uid: 4294967295}}]"), "spec.volumes[0].ownership.uid: 4294967295 is nobody's id"},
		"group that is none":  {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {uid: 1, gid: 4294967295}}]"), "spec.volumes[0].ownership.gid: 4294967295 is nobody's id"},
		"mode of an owner":    {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {mode: '0999'}}]"), "spec.volumes[0].ownership.mode: expected permissions"},
		"when to own":         {with("volumes: [{mountPath: /x, volume: {name: a}, ownership: {uid: 1, when: always}}]"), "spec.volumes[0].ownership.when: expected one of fresh, onRootMismatch"},
		"no source":           {with("volumes: [{name: a, mountPath: /x}]"), "expected exactly one of hostPath, volume, emptyDir, tmpfs, config, secret, got 0"},
		"two media":           {with("volumes: [{name: a, mountPath: /x, emptyDir: {}, tmpfs: {}}]"), "spec.volumes[0]: expected exactly one of hostPath, volume, emptyDir, tmpfs, config, secret, got 2"},
		"medium":              {with("volumes: [{name: a, mountPath: /x, emptyDir: {medium: Memory}}]"), `spec.volumes[0].emptyDir.medium: expected one of disk, memory, got "Memory"; did you mean "memory"?`},
		"no unit":             {with("volumes: [{name: a, mountPath: /x, emptyDir: {size: 10}}]"), "spec.volumes[0].emptyDir.size: expected at least 1Mi, got 10"},
		"negative size":       {with("volumes: [{name: a, mountPath: /x, emptyDir: {size: -1Gi}}]"), "spec.volumes[0].emptyDir.size: expected"},
		"size of a Pod":       {with("volumes: [{name: a, mountPath: /x, emptyDir: {sizeLimit: 1Gi}}]"), "spec.volumes[0].emptyDir.sizeLimit: sizeLimit has another name here; use size"},
		"owner of emptyDir":   {with("volumes: [{name: a, mountPath: /x, emptyDir: {}, ownership: {uid: 1}}]"), "spec.volumes[0].ownership: is for a hostPath, a named volume, config and secret"},
		"shared emptyDir":     {with("volumes: [{name: a, mountPath: /x, emptyDir: {}, shared: true}]"), "spec.volumes[0].shared: is for a hostPath or a named volume"},
		"part of emptyDir":    {with("volumes: [{name: a, mountPath: /x, emptyDir: {}, subPath: b}]"), "spec.volumes[0].subPath: is for a hostPath, a named volume, config and secret"},
		"nameless emptyDir":   {with("volumes: [{mountPath: /x, emptyDir: {}}]"), "spec.volumes[0].name: expected a DNS label"},
		"many on the disk":    {with("overlay: disk", "volumes: ["+manyEmptyDirs(16)+"]"), "spec.volumes[15].emptyDir: is one too many on the disk, where at most 16 are possible"},
		"overlay size":        {with("overlaySize: 1"), "spec.overlaySize: expected at least 1Mi, got 1"},
		"size of no overlay":  {strings.Replace(with("overlay: none", "overlaySize: 1Gi"), "{host: {}}", "{dir: /r}", 1), "spec.overlaySize: is for overlay: memory or disk"},
		"other overlay":       {with("overlay: dsik"), `spec.overlay: expected one of memory, disk, none, got "dsik"; did you mean "disk"?`},
		"capability":          {with("capabilities: {add: [NET_ADMN]}"), `unknown capability "NET_ADMN"; did you mean "NET_ADMIN"?`},
		"rlimit":              {with("rlimits: [{type: NOFILE, soft: 2, hard: 1}]"), "spec.rlimits[0].soft: expected at most the hard limit 1, got 2"},
		"signal":              {with("stopSignal: SIGNOPE"), `spec.stopSignal: expected a signal such as SIGTERM, TERM, 15 or SIGRTMIN+3, got "SIGNOPE"`},
		"small memory":        {with("resources: {memory: 1Mi}"), "spec.resources.memory: expected at least 32Mi"},
		"backoff":             {with("backoff: {initial: 10s, max: 1s}"), "spec.backoff.max: expected at least the initial delay 10s, got 1s"},
		"no overlay":          {with("overlay: none"), "spec.overlay: none is not possible with root.host"},
		"host name":           {with("hostname: a_b"), "spec.hostname: expected a host name"},
		"env name":            {with("env: [{name: 1A, value: x}]"), "spec.env[0].name: expected the name of an environment variable"},
		"long name":           {strings.Replace(minimal, "name: web", "name: "+strings.Repeat("a", 64), 1), "metadata.name: expected a DNS label"},
		"deep":                {strings.Repeat("[", 500) + "\n", "nested more than"},
		"deep indentation": {func() string {
			var b strings.Builder
			b.WriteString("spec:\n")
			for i := range 60 {
				fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i+1))
			}
			return b.String()
		}(), "nested more than"},
		"two of a name": {minimal + "---\n" + minimal, `f.yaml:8:1: metadata.name: sandbox "web" is also defined at f.yaml:1:1`},
		"big document":  {minimal + "# " + strings.Repeat("x", yamldoc.MaxDocumentBytes) + "\n", "at most 65536 are allowed"},
		"big file":      {strings.Repeat("x", yamldoc.MaxFileBytes+1), "split it"},
		"documents":     {strings.Repeat("---\n", yamldoc.MaxDocuments+1), "f.yaml:501:1: the file has more than 500 documents; split it"},
		"many values":   {with("args: [" + strings.Repeat("a,", yamldoc.MaxNodes) + "a]"), "more than 4000 values"},
	} {
		if got := problems(t, c.text); !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s\nexpected\n%s", name, got, c.want)
		}
	}
}

// manyEmptyDirs are so many volumes.
func manyEmptyDirs(n int) string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("{name: a%d, mountPath: /a%d, emptyDir: {}}", i, i)
	}
	return strings.Join(out, ", ")
}

// What has a place in a manifest and no implementation is refused, never
// ignored.
func TestDecodeUnsupported(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{
		"platform: kvm", "platform: ptrace", "probes: {liveness: {tcp: {port: 1}}}",
		"dependsOn: [a]",
		"volumes: [{name: a, mountPath: /a, secret: {directory: /x}}]",
	} {
		if got := problems(t, with(spec)); !strings.Contains(got, "not supported yet") {
			t.Errorf("%s: %q", spec, got)
		}
	}
}

// Everything that is wrong is told at once, in the order of the file.
func TestDecodeAllAtOnce(t *testing.T) {
	t.Parallel()
	got := problems(t, with("hostnam: x", "restartPolicy: Sometimes", "resources: {cpu: 1m, memory: lots}", "volumes: [{name: a, mountPath: /dev}]"))
	for _, want := range []string{"spec.hostnam:", "spec.restartPolicy:", "spec.resources.cpu:", "spec.resources.memory:", "spec.volumes[0].mountPath:", "spec.volumes[0]: expected exactly one"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not told:\n%s", want, got)
		}
	}
	// A list item of the wrong shape hides nothing behind it.
	for _, item := range []string{"env: [A=b]", "env: [5]", "env: [[a]]", "volumes: [\"/a:/b\"]", "rlimits: [NOFILE]", "args: [{a: b}]", "args: [~]"} {
		if got := problems(t, with(item, "restartPolicy: Sometimes")); !strings.Contains(got, "spec.restartPolicy:") || !strings.Contains(got, "[0]: expected") {
			t.Errorf("%s: %s", item, got)
		}
	}
	if strings.Index(got, "f.yaml:7") > strings.Index(got, "f.yaml:8") {
		t.Errorf("not in order:\n%s", got)
	}
}

func TestDecodeGood(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"leading separator": "---\n" + minimal,
		"two documents":     minimal + "---\n" + strings.Replace(minimal, "web", "db", 1),
		"JSON":              `{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"a"},"spec":{"root":{"host":{}},"command":["a"]}}`,
		"CRLF":              strings.ReplaceAll(minimal, "\n", "\r\n"),
		"bundle":            "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: a}\nspec: {root: {bundle: /b}}\n",
		"a bit of all": with("args: [a]", "env: [{name: A, value: '1'}]", "workingDir: /tmp", "user: {uid: 1, gid: 2, groups: [3]}", "hostname: a.b",
			"capabilities: {add: [cap_net_raw], drop: [all]}", "rlimits: [{type: rlimit_nofile, soft: 1, hard: 2}]",
			"volumes: [{name: a, mountPath: /a, hostPath: /srv/a, readOnly: true, options: [noexec, nosuid, nodev, noatime]}, {name: b, mountPath: /b, tmpfs: {size: 1Mi}}, {name: c, mountPath: /c, emptyDir: {}}, {name: d, mountPath: /d, readOnly: true, emptyDir: {size: 1.5Gi, medium: disk}, options: [noexec]}, {name: e, mountPath: /e, emptyDir: {medium: memory}}]",
			"overlay: disk", "overlaySize: 1Mi",
			"network: {mode: host}", "fileAccess: direct", "resources: {cpu: 0.5, memory: 1.5Gi, pids: 100}", "restartPolicy: OnFailure",
			"backoff: {initial: 0s, max: 10s, resetAfter: 1m, limit: 3}", "stopSignal: SIGINT", "terminationGracePeriod: 1m30s", "suspend: true"),
		"ids":   with("idMappings: {uids: [{containerID: 0, hostID: 100000, size: 65536}], gids: [{containerID: 1, hostID: 7, size: 1}, {containerID: 0, hostID: 9, size: 1}]}"),
		"netns": with("network: {mode: netns, netns: shop}"),
	} {
		if got := problems(t, text); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// What a bundle brings can't be given twice.
func TestDecodeBundleOwns(t *testing.T) {
	t.Parallel()
	got := problems(t, strings.Replace(with("env: [{name: A, value: b}]", "user: {uid: 1, gid: 1}"), "{host: {}}", "{bundle: /b}", 1))
	for _, f := range []string{"command", "env", "user"} {
		if !strings.Contains(got, "spec."+f+": can't be set with root.bundle") {
			t.Errorf("%s: %s", f, got)
		}
	}
}

// A problem is shown at its sandbox also when the text does not parse.
func TestDecodeNamesBroken(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"apiVersion: sandboxctl.dev/x\nkind: y\nmetadata:\n  labels: {a: b}\n  name: web # it\nspec: [\n",
		with("comand: [a]"), minimal + "  command: [x\n",
	} {
		docs, ps := Decode("f", []byte(strings.Replace(text, "{name: web}", "\n  name: web", 1)))
		if len(ps) == 0 || docs[0].Name != "web" || ps[0].Name != "web" {
			t.Errorf("%v %v\n%s", docs, ps, text)
		}
	}
}

func manyKeys(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "k%d: v\n", i)
	}
	return b.String()
}

// A file that was cut short says less, or says so; never something else.
func TestDecodeTruncated(t *testing.T) {
	t.Parallel()
	text := []byte(minimal + "  hostname: other\n---\n" + strings.Replace(minimal, "web", "db", 1))
	whole, _ := Decode("f", text)
	for n := range text {
		docs, ps := Decode("f", text[:n])
		if len(ps) > 0 {
			continue
		}
		for i, d := range docs {
			if d.Name != whole[i].Name {
				t.Errorf("cut to %d bytes it is about %q", n, d.Name)
			}
		}
	}
}

func TestHashGolden(t *testing.T) {
	t.Parallel()
	// These are in records on disks: a new field must not change them.
	for text, want := range map[string]string{
		minimal: "v1:731219252d559f9989300c21d7d213389d9549c7ea9e7a93e1abac51e06ed6fc",
		with("env: [{name: A, value: b}]", "volumes: [{name: a, mountPath: /a, hostPath: /b}]", "resources: {memory: 64Mi}", "network: {mode: host}"): "v1:d7791f13e513d1ee65fa84b5d0a2c008b7d73c07c88d1fcacc0f6f171f17bbb2",
	} {
		docs, ps := Decode("f", []byte(text))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		if got := Hash(docs[0].Sandbox); got != want {
			t.Errorf("hash is %s, expected %s of\n%s", got, want, text)
		}
		if !HashMatches(want, docs[0].Sandbox) || HashMatches("v0:x", docs[0].Sandbox) {
			t.Error("HashMatches")
		}
	}
}

// What only says when a sandbox runs does not change its hash; what says what
// runs does.
func TestHashCovers(t *testing.T) {
	t.Parallel()
	hash := func(text string) string {
		docs, ps := Decode("f", []byte(text))
		if len(ps) > 0 {
			t.Fatalf("%v\n%s", ps, text)
		}
		return Hash(docs[0].Sandbox)
	}
	base := hash(minimal)
	for _, same := range []string{"suspend: true", "restartPolicy: Never", "backoff: {initial: 5s}", "stopSignal: SIGINT", "terminationGracePeriod: 1s", "overlay: memory", "hostname: web", "platform: systrap", "init: true"} {
		if hash(with(same)) != base {
			t.Errorf("%s changes the hash", same)
		}
	}
	seen := map[string]string{base: "minimal"}
	for _, other := range []string{
		"hostname: x", "args: [a]", "workingDir: /tmp", "user: {uid: 1, gid: 1}", "env: [{name: A, value: b}]", "fileAccess: direct",
		"resources: {cpu: 1}", "capabilities: {drop: [ALL]}", "init: false", "rlimits: [{type: CPU, soft: 1, hard: 1}]", "network: {mode: host}",
		"volumes: [{name: a, mountPath: /a, tmpfs: {}}]",
	} {
		h := hash(with(other))
		if prev, ok := seen[h]; ok {
			t.Errorf("%s has the hash of %s", other, prev)
		}
		seen[h] = other
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &Sandbox{APIVersion: APIVersion, Kind: Kind, Metadata: Metadata{Name: rapid.StringMatching(`[a-z]{1,10}`).Draw(t, "name")}}
		s.Spec.Root.Host = &HostRoot{}
		s.Spec.Command = rapid.SliceOfN(rapid.StringMatching(`[a-z /]{1,8}`), 1, 4).Draw(t, "command")
		s.Spec.Resources.CPU = scalar.CPU(rapid.Int64Range(MinCPU, 64000).Draw(t, "cpu"))
		s.Spec.Resources.Memory = scalar.Bytes(rapid.Int64Range(MinMemory, 1<<40).Draw(t, "memory"))
		Default(s)
		b, err := Canonical(s)
		if err != nil {
			t.Fatal(err)
		}
		e, err := FromCanonical(b, "f")
		if err != nil {
			t.Fatal(err)
		}
		again, err := Canonical(e.Sandbox)
		if err != nil || !bytes.Equal(again, b) || e.Hash != Hash(s) {
			t.Fatalf("%v\n%s\n%s", err, b, again)
		}
	})
	if _, err := FromCanonical([]byte(`{"spec":{}}`), "f"); err == nil {
		t.Error("an invalid recorded manifest is used")
	}
}

func TestWithout(t *testing.T) {
	t.Parallel()
	one, two := minimal, "---\n# about db\n"+strings.Replace(minimal, "web", "db", 1)
	for _, c := range []struct{ text, name, want string }{
		{one + two, "web", two}, {one + two, "db", one}, {one, "web", ""},
	} {
		got, err := Without("f", []byte(c.text), c.name)
		if err != nil || string(got) != c.want {
			t.Errorf("without %s: %v\n%s", c.name, err, got)
		}
	}
	if _, err := Without("f", []byte(one), "other"); err == nil {
		t.Error("a name that is not there was taken out")
	}
}

func BenchmarkDecode(b *testing.B) {
	text := []byte(with("env: [{name: A, value: b}]", "volumes: [{name: a, mountPath: /a, hostPath: /b}]"))
	for b.Loop() {
		if _, ps := Decode("f", text); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

// A value of another shape is told with the one that is expected.
func TestWrongShape(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		`command: sleep 1`:                  `spec.command: expected a list, got "sleep 1"; for example command: [sleep, "1"]`,
		`args: {a: b}`:                      `spec.args: expected a list, got an object; for example args: ["-v", "1"]`,
		`env: {A: b}`:                       `spec.env: expected a list, got an object; for example env: [{name: KEY, value: text}]`,
		`env: [A=b]`:                        `spec.env[0]: expected an object, got "A=b"; for example {name: KEY, value: text}`,
		`volumes: ["/a:/b"]`:                `spec.volumes[0]: expected an object, got "/a:/b"; for example {name: data, mountPath: /data, hostPath: /srv/sandboxctl/data}`,
		`volumes:`:                          `spec.volumes: expected a list, got nothing; for example volumes: [{name:`,
		`user: 1000`:                        `spec.user: expected an object, got the number 1000; for example user: {uid: 1000, gid: 1000}`,
		`user: {uid: 1, gid: 1, groups: 5}`: `spec.user.groups: expected a list, got the number 5; for example groups: [1000, 1001]`,
		`resources: 256Mi`:                  `spec.resources: expected an object, got "256Mi"; for example resources: {cpu: 500m, memory: 256Mi, pids: 128}`,
		`capabilities: [NET_RAW]`:           `spec.capabilities: expected an object, got a list; for example capabilities: {add: [NET_ADMIN], drop: [ALL]}`,
		`network: host`:                     `spec.network: expected an object, got "host"; for example network: {ports: [{containerPort: 80, hostPort: 8080}]}`,
		`backoff: 1s`:                       `spec.backoff: expected an object, got "1s"; for example backoff: {initial: 1s, max: 5m}`,
	} {
		text := with(spec)
		if strings.HasPrefix(spec, "command") {
			text = strings.Replace(minimal, "command: [sh]", spec, 1)
		}
		if got := problems(t, text); !strings.Contains(got, want) {
			t.Errorf("%s: got\n%s\nexpected\n%s", spec, got, want)
		}
	}
}
