// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/reconcile"
)

// canary is a process that nobody here has a reason to signal.
func canary(t *testing.T) process.Identity {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	id, err := process.Identify(pidfd, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustLive(t *testing.T, what string, id *process.Identity) {
	t.Helper()
	if live, err := process.LivenessOf(id); live != process.Alive {
		t.Errorf("%s (pid %d) was ended: %v", what, id.PID, err)
	}
}

// sealed is a record file with a right checksum, whatever its content.
func sealed(t *testing.T, rec *actual.Record, change func(map[string]any)) []byte {
	t.Helper()
	b, err := json.Marshal(rec)
	var m map[string]any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // an inode does not fit a float
	if err := errors.Join(err, dec.Decode(&m)); err != nil {
		t.Fatal(err)
	}
	change(m)
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"crc32c":"%08x","record":%s}`+"\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)), b)
}

// The daemon among hundreds of damaged and forged records made of the real one of
// a sandbox that runs: what is damaged is quarantined and stays as it is to the byte, no
// process that a record names by mistake is signalled, and what runs runs on.
func TestDamagedRecords(t *testing.T) {
	requireHost(t)
	h := daemonHost(t)
	const app = "  overlay: none\n  command: [/bin/busybox, sleep, '1000']\n  terminationGracePeriod: 0s\n"
	runs := func(name string) *actual.Record {
		var rec *actual.Record
		h.until(name, func() bool {
			rec, _, _ = h.store.Get(name)
			return rec != nil && rec.Phase == actual.PhaseRunning
		})
		return rec
	}
	h.drop("live", app)
	live := runs("live")
	stranger := canary(t)

	quarantined := map[string][]byte{} // what must be quarantined, and its bytes
	forged := 0                        // what is readable, and names the stranger
	put := func(name string, b []byte) {
		dir := filepath.Join(h.state, "sandboxes", name)
		// Whole at once, as a daemon in the middle of it would see it.
		tmp := filepath.Join(h.work, name)
		h.must(errors.Join(os.Mkdir(tmp, 0o700), os.WriteFile(filepath.Join(tmp, "meta.json"), b, 0o600), os.Rename(tmp, dir)))
	}
	rec := func(name string) *actual.Record {
		r := live.Clone()
		r.Name, r.Sentry, r.Gofer, r.Cgroups = name, &stranger, &stranger, nil
		return r
	}
	encoded := func(name string) []byte {
		b, err := actual.EncodeRecord(rec(name))
		h.must(err)
		return b
	}
	// Flips and cuts, drawn from all there are: TestRecordDamage has every one.
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		name := fmt.Sprintf("flip%d", i)
		b := encoded(name)
		bit := rnd.IntN(8 * len(b))
		b[bit/8] ^= 1 << (bit % 8)
		quarantined[name] = b
		name = fmt.Sprintf("cut%d", i)
		b = encoded(name)
		quarantined[name] = b[:rnd.IntN(len(b))]
	}
	// Wrong values under a right checksum.
	pid := func(v any) func(map[string]any) {
		return func(m map[string]any) { m["sentry"].(map[string]any)["pid"] = v }
	}
	set := func(k string, v any) func(map[string]any) { return func(m map[string]any) { m[k] = v } }
	for name, change := range map[string]func(map[string]any){
		"pid-minus-1": pid(-1), "pid-0": pid(0), "pid-1": pid(1), "pid-2-31": pid(1 << 31), "pid-2-63": pid(json.Number("9223372036854775808")),
		"pid-text": pid("x"), "pid-null": pid(nil), "version-0": set("version", 0), "version-999": set("version", 999), "version-x": set("version", "x"),
		"version-null": set("version", nil), "name-other": set("name", "live"), "name-up": set("name", "../live"), "uid-empty": set("uid", ""),
		"phase": set("phase", "Dancing"), "unknown": set("sandboxRoot", "/"), "cgroups": set("cgroups", 1),
	} {
		quarantined[name] = sealed(t, rec(name), change)
	}
	for name, b := range quarantined {
		put(name, b)
	}
	// Readable records that name the stranger as somebody it is not, in every
	// phase, wanted and not.
	n := 0
	for _, phase := range []actual.Phase{actual.PhaseCreating, actual.PhaseCreated, actual.PhaseStarting, actual.PhaseRunning, actual.PhaseStopping, actual.PhaseStopped} {
		for what, change := range map[string]func(id *process.Identity){
			"inode":      func(id *process.Identity) { id.Inode++ },
			"boot":       func(id *process.Identity) { id.BootID = "another" },
			"start time": func(id *process.Identity) { id.Inode, id.StartTime = 0, id.StartTime-1 },
		} {
			n++
			name := fmt.Sprintf("forged%d", n)
			r, id := rec(name), stranger
			change(&id)
			r.Phase, r.Sentry, r.Gofer = phase, &id, &id
			r.Ending = &actual.Ending{Reason: what, StopSignal: "SIGKILL", Grace: 1}
			b, err := actual.EncodeRecord(r)
			h.must(err)
			put(name, b)
			forged++
		}
	}
	// All of the quarantined are wanted: no second one may be made of any.
	var manifests strings.Builder
	for name := range quarantined {
		fmt.Fprintf(&manifests, "---\napiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: {dir: %s/rootfs}\n%s", name, h.work, app)
	}
	h.must(os.WriteFile(h.manifests+"/.quarantined", []byte(manifests.String()), 0o644))
	h.must(os.Rename(h.manifests+"/.quarantined", h.manifests+"/quarantined.yaml"))
	h.until("the end of what is forged", func() bool {
		l, err := h.store.List()
		h.must(err)
		for _, r := range l.Records {
			if strings.HasPrefix(r.Name, "forged") {
				return false
			}
		}
		return true
	})
	h.drop("after", app)
	runs("after") // so the daemon has seen everything

	mustLive(t, "a stranger", &stranger)
	mustLive(t, "the sentry", live.Sentry)
	mustLive(t, "the gofer", live.Gofer)
	for name, want := range quarantined {
		dir := filepath.Join(h.state, "sandboxes", name)
		if b, err := os.ReadFile(filepath.Join(dir, "meta.json")); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: it was written to: %v", name, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%s: something was made in it: %v %v", name, entries, err)
		}
	}
	out, err := h.command("get", "-o", "json").Output()
	h.must(err)
	var list objectList
	h.must(json.Unmarshal(out, &list))
	phases := map[string]int{}
	for i := range list.Items {
		phases[list.Items[i].Status.Phase]++
	}
	if phases[reconcile.PhaseQuarantined] != len(quarantined) || phases[reconcile.PhaseRunning] != 2 || len(list.Items) != len(quarantined)+2 {
		t.Errorf("phases %v, expected %d quarantined and 2 running", phases, len(quarantined))
	}
	if log, err := os.ReadFile(h.daemon.Stderr.(*os.File).Name()); err != nil || bytes.Contains(log, []byte("panic")) {
		t.Errorf("%v\n%s", err, log)
	}
	t.Logf("%d damaged records quarantined, %d forged ones cleaned up", len(quarantined), forged)
	h.must(os.Remove(h.manifests + "/quarantined.yaml"))
}
