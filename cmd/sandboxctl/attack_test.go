// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// attackHost is a host with a daemon, a directory that may be shared and one
// that nothing may reach.
type attackHost struct {
	*host
	allowed, canary string
	prefix          string // of the names of the attacks
	before          string
}

func newAttackHost(t *testing.T, policy func(h *attackHost) string) *attackHost {
	t.Helper()
	requireHost(t)
	h := &attackHost{host: daemonHost(t)}
	h.allowed, h.canary = filepath.Join(h.work, "allowed"), filepath.Join(h.work, "canary")
	h.prefix = fmt.Sprintf("atk%d-", os.Getpid())
	h.must(os.MkdirAll(filepath.Join(h.allowed, "real"), 0o755))
	h.must(os.MkdirAll(h.canary, 0o755))
	h.must(os.WriteFile(filepath.Join(h.canary, "secret"), []byte("canary"), 0o600))
	h.write(filepath.Join(h.work, "policy.yaml"), policy(h))
	h.before = h.touched()
	return h
}

// write replaces a file whole.
func (h *attackHost) write(path, text string) {
	h.b.Helper()
	tmp := filepath.Join(h.work, "tmp-"+filepath.Base(path))
	h.must(os.WriteFile(tmp, []byte(text), 0o644))
	h.must(os.Rename(tmp, path))
}

// touched is everything that an attack could have left its mark on: the canary and
// the root filesystem, with the times of their files, mounts, and cgroups of the
// name of an attack.
func (h *attackHost) touched() string {
	h.b.Helper()
	var b strings.Builder
	for _, dir := range []string{h.canary, filepath.Join(h.work, "rootfs")} {
		h.must(filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return err
			}
			fmt.Fprintln(&b, p, st.Mode, st.Uid, st.Nlink, st.Size, st.Mtim, st.Ctim)
			return nil
		}))
	}
	secret, err := os.ReadFile(filepath.Join(h.canary, "secret"))
	h.must(err)
	fmt.Fprintf(&b, "%s\n", secret)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	h.must(err)
	for l := range strings.Lines(string(mounts)) {
		if strings.Contains(l, h.state) {
			b.WriteString(l)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/sandboxctl/", "/sys/fs/cgroup/*/sandboxctl/"} {
		groups, err := filepath.Glob(pattern + h.prefix + "*")
		h.must(err)
		b.WriteString(strings.Join(groups, "\n"))
	}
	return b.String()
}

// list is what `get -o json` says.
func (h *attackHost) list() map[string]object {
	h.b.Helper()
	out, err := h.command("get", "-o", "json").Output()
	h.must(err)
	var l objectList
	h.must(json.Unmarshal(out, &l))
	byName := map[string]object{}
	for _, o := range l.Items {
		byName[o.Metadata.Name] = o
	}
	return byName
}

// good is a manifest among the bad ones, which must not suffer for them.
func (h *attackHost) good() {
	h.b.Helper()
	h.write(filepath.Join(h.manifests, "good.yaml"), fmt.Sprintf("apiVersion: %s\nkind: Sandbox\nmetadata: {name: good}\nspec:\n  root: {dir: %s/rootfs}\n  command: [/bin/busybox, sleep, '1000']\n  terminationGracePeriod: 0s\n", desired.APIVersion, h.work))
}

func (h *attackHost) untilGood() {
	h.b.Helper()
	h.until("the good one", func() bool {
		rec, _, err := h.store.Get("good")
		return err == nil && rec != nil && rec.Phase == actual.PhaseRunning
	})
}

// restricted is a policy of one directory, to read.
func restricted(h *attackHost) string {
	return fmt.Sprintf(`apiVersion: %s
kind: HostPolicy
hostPaths: [{path: %q, access: readOnly}]
root: {dirs: [{path: %q, access: readOnly}, {path: %q, access: readOnly}], bundles: [{path: %q, access: readWrite}]}
`, desired.APIVersion, h.allowed, h.allowed, h.work+"/rootfs", h.allowed+"/bundles")
}

// Every attack is refused where it is read, with the line of what is wrong, and
// nothing comes of it: all of them in one directory, and a good manifest among
// them that runs.
func TestAttacks(t *testing.T) {
	h := newAttackHost(t, restricted)
	all := attacks(h.allowed, []string{h.work, h.state, h.manifests, h.work + "/policy.yaml", h.allowed + "x", h.allowed + "-not/real", h.canary})
	seen := map[string]bool{}
	files := map[string]*attack{}
	names := map[string]bool{}
	for i := range all {
		a := &all[i]
		if seen[a.name] || seen[a.text] {
			t.Fatalf("%s is there twice", a.name)
		}
		seen[a.name], seen[a.text] = true, true
		name := fmt.Sprintf("%s%d", h.prefix, i)
		names[name] = true
		file := fmt.Sprintf("a%04d.yaml", i)
		files[file] = a
		h.must(os.WriteFile(filepath.Join(h.manifests, file), []byte(strings.ReplaceAll(a.text, attackNumber, name)), 0o644))
	}
	if len(all) < 300 {
		t.Errorf("only %d attacks", len(all))
	}
	h.good()

	cmd := h.command("validate", "-o", "json")
	out, err := cmd.Output()
	if err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	var report struct{ Problems []desired.Problem }
	h.must(json.Unmarshal(out, &report))
	problems := report.Problems
	if i := bytes.IndexFunc(bytes.ReplaceAll(out, []byte{'\n'}, nil), untrusted.Obeyed); i >= 0 {
		t.Errorf("what is printed is obeyed by a terminal: %q", out[max(0, i-100):i+10])
	}
	first := map[string]*desired.Problem{}
	for i := range problems {
		p := &problems[i]
		a := files[p.File]
		if a == nil {
			t.Errorf("%s is refused: %s", p.File, p.Error())
			continue
		}
		if p.Line < 1 || p.Column < 1 {
			t.Errorf("%s: no place: %s", a.name, p.Error())
		}
		if (a.line == 0 || p.Line == a.line) && (strings.HasPrefix(p.Field, a.want) || strings.HasPrefix(p.Message, a.want)) {
			first[p.File] = p
		}
	}
	for file, a := range files {
		if first[file] == nil {
			var got []string
			for _, p := range problems {
				if p.File == file {
					got = append(got, p.Error())
				}
			}
			t.Errorf("%s: expected line %d, %s; got %q:\n%.300s", a.name, a.line, a.want, got, a.text)
		}
	}

	h.untilGood()
	for name, o := range h.list() {
		if name != "good" && names[name] && (o.Status.Phase != reconcile.PhaseInvalid || len(o.Status.Problems) == 0 || o.Status.SentryPID != 0) {
			t.Errorf("%s: %+v", name, o.Status)
		}
	}
	left, err := os.ReadDir(filepath.Join(h.state, "sandboxes"))
	if err != nil || len(left) != 1 || left[0].Name() != "good" {
		t.Errorf("%v %v", left, err)
	}
	if after := h.touched(); after != h.before {
		t.Errorf("before:\n%s\nafter:\n%s", h.before, after)
	}
	t.Logf("%d attacks, %d problems", len(all), len(problems))
}

// What a policy refuses that asks for more than to stay in a directory.
func TestAttacksPolicies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const head = "apiVersion: " + desired.APIVersion + "\nkind: HostPolicy\n"
	for name, c := range map[string]struct{ policy, line, want string }{
		"root of the sandbox":   {"rootUser: false", "user: {uid: 0, gid: 1}", "8:3: spec.user: "},
		"no user":               {"rootUser: false", "args: []", "5:1: spec.user: "},
		"no mappings":           {"minHostID: 100000", "args: []", "5:1: spec.idMappings: "},
		"mapped to root":        {"minHostID: 100000", "idMappings: {uids: [{containerID: 0, hostID: 0, size: 1}], gids: [{containerID: 0, hostID: 100000, size: 1}]}", "8:40: spec.idMappings.uids[0].hostID: "},
		"group mapped to root":  {"minHostID: 100000", "idMappings: {gids: [{containerID: 0, hostID: 42, size: 1}], uids: [{containerID: 0, hostID: 100000, size: 1}]}", "8:40: spec.idMappings.gids[0].hostID: "},
		"more than the host":    {"", "resources: {memory: 900Ti}", "8:15: spec.resources.memory: "},
		"more than the default": {"maxResources: {cpu: 1}", "resources: {pids: 8193}", "8:15: spec.resources.pids: "},
		"too much memory":       {"maxResources: {memory: 1Gi}", "resources: {memory: 2Gi}", "8:15: spec.resources.memory: "},
		"too many processors":   {"maxResources: {cpu: 1}", "resources: {cpu: 1001m}", "8:15: spec.resources.cpu: "},
		"too many processes":    {"maxResources: {pids: 100}", "resources: {pids: 101}", "8:15: spec.resources.pids: "},
		"a view of the host":    {"root: {host: false}", "args: []", "6:10: spec.root.host: "},
		"no platform":           {"platforms: []", "args: []", "spec.platform: "},
		"another namespace":     {"network: {netns: [a]}", "network: {mode: netns, netns: ab}", "8:26: spec.network.netns: "},
		"not this capability":   {"capabilities: [NET_ADMIN]", "capabilities: {add: [NET_ADMIN, SYS_ADMIN]}", "8:35: spec.capabilities.add[1]: "},
		"a default one dropped": {"capabilities: []", "capabilities: {drop: [ALL], add: [SYS_ADMIN]}", "8:37: spec.capabilities.add[0]: "},
	} {
		policy, manifest := filepath.Join(dir, name+".policy"), filepath.Join(dir, name+".yaml")
		must(t, os.WriteFile(policy, []byte(head+c.policy+"\n"), 0o644))
		must(t, os.WriteFile(manifest, []byte(strings.ReplaceAll(strings.Join(attackHead, "\n"), attackNumber, "a")+"\n  "+c.line+"\n"), 0o644))
		var out, errs bytes.Buffer
		a := &app{Host: world.Host{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}}
		code := a.run(t.Context(), []string{"--state", filepath.Join(dir, "none"), "--policy", policy, "validate", manifest})
		if code != 1 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: exit code %d: %s, expected %q", name, code, errs.String(), c.want)
		}
	}
}
