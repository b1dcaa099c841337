// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
	it "sandboxctl.dev/launcher/image/imagetest"
	"sandboxctl.dev/reconcile"
)

// hostileImage is an image that somebody has made who means no good, or nothing at all.
type hostileImage struct {
	config map[string]any // of its application
	files  []it.Entry
	whole  map[string]any // the rest of the configuration
	spec   string         // more lines of the manifest
	// The status must tell want, with the reason of the condition Ready. If reason is "" the
	// sandbox runs, and its log has want.
	reason, want string
}

// hostileImages are all of them. Those that run print something and sleep.
func hostileImages(secret string) map[string]hostileImage {
	const (
		refused = actual.ReasonCreateRefused
		failed  = actual.ReasonPullFailed
		again   = actual.ReasonCreateFailed // found out in the sandbox; it is tried again
	)
	sh := func(script string) []string {
		return []string{"/bin/busybox", "sh", "-c", script + "; echo end; exec /bin/busybox sleep 1000"}
	}
	end := sh("true")
	with := func(key string, value any) map[string]any { return map[string]any{"Cmd": end, key: value} }
	plain := map[string]any{"Cmd": end}
	up := strings.Repeat("../", 30)
	const passwd, group = "etc/passwd", "etc/group"
	named := map[string]any{"Cmd": end, "User": "app"}
	many := make([]string, 1_000_000)
	for i := range many {
		many[i] = fmt.Sprintf("A%d=", i)
	}
	out := map[string]hostileImage{
		// Users.
		"passwd is a directory":             {config: named, files: []it.Entry{it.Dir("etc"), it.Dir(passwd)}, reason: refused, want: "etc/passwd is no regular file"},
		"passwd is a FIFO":                  {config: named, files: []it.Entry{it.Special(tar.TypeFifo, passwd, 0, 0)}, reason: refused, want: "etc/passwd is no regular file"},
		"passwd is a FIFO that nobody asks": {config: plain, files: []it.Entry{it.Special(tar.TypeFifo, passwd, 0, 0)}, reason: refused, want: "etc/passwd is no regular file"},
		"passwd is huge":                    {config: named, files: []it.Entry{it.File(passwd, strings.Repeat("x:x:1:1::/:\n", 100_000))}, reason: refused, want: "it has more than 1048576 bytes"},
		"passwd of one long line":           {config: named, files: []it.Entry{it.File(passwd, strings.Repeat("x", 1<<20))}, reason: refused, want: "spec.root.image: the user of the image: "},
		"passwd leads out":                  {config: named, files: []it.Entry{it.Symlink(passwd, up+"etc/passwd")}, reason: refused, want: "spec.root.image: "},
		"passwd leads out, absolute":        {config: named, files: []it.Entry{it.Symlink(passwd, secret)}, reason: refused, want: "spec.root.image: "},
		"passwd leads to itself":            {config: named, files: []it.Entry{it.Symlink(passwd, "passwd")}, reason: refused, want: "spec.root.image: "},
		"etc leads out":                     {config: named, files: []it.Entry{it.Symlink("etc", up+"etc")}, reason: refused, want: "spec.root.image: "},
		"passwd leads into proc":            {config: named, files: []it.Entry{it.Symlink(passwd, "/proc/self/root/etc/passwd")}, reason: refused, want: "spec.root.image: "},
		"group is a directory":              {config: plain, files: []it.Entry{it.Dir(group)}, reason: refused, want: "etc/group is no regular file"},
		"passwd with NULs":                  {config: named, files: []it.Entry{it.File(passwd, "app\x00:x:1:1::/:\n\x00\x00")}, reason: refused, want: "unable to find user app"},
		"passwd with ids that are none":     {config: named, files: []it.Entry{it.File(passwd, "app:x:4294967295:-1::/:\n")}, reason: refused, want: "4294967295 is no id"},
		"passwd with a home of escapes":     {config: map[string]any{"Cmd": sh("echo $HOME"), "User": "app"}, files: []it.Entry{it.File(passwd, "app:x:7:7::/\x1b[2J:\n")}, want: "end"},
		"user that is a path":               {config: with("User", "/etc"), files: []it.Entry{it.Dir("etc")}, reason: refused, want: "unable to find user /etc"},
		"user that leads up":                {config: with("User", up+"root"), reason: refused, want: "unable to find user ../"},
		"user of escapes":                   {config: with("User", "\x1b[2J\u202e"), reason: refused, want: "unable to find user "},
		"user of a megabyte":                {config: with("User", strings.Repeat("u", 1<<20)), reason: refused, want: "its name has 1048576 bytes"},
		"user -1":                           {config: with("User", "-1"), reason: refused, want: "spec.root.image: the user of the image: "},
		"user too large":                    {config: with("User", "4294967295"), reason: refused, want: "spec.root.image: the user of the image: "},
		"group of colons":                   {config: with("User", "0:::"), reason: refused, want: "spec.root.image: the user of the image: "},

		// Programs.
		"program is missing":         {config: map[string]any{"Cmd": []string{"/nosuch"}}, reason: refused, want: "command not found in the sandbox: /nosuch"},
		"program is a directory":     {config: map[string]any{"Cmd": []string{"/bin"}}, reason: refused, want: "/bin"},
		"program is not executable":  {config: map[string]any{"Cmd": []string{"/plain"}}, files: []it.Entry{it.File("plain", "text")}, reason: refused, want: "/plain"},
		"program is a FIFO":          {config: map[string]any{"Cmd": []string{"/fifo"}}, files: []it.Entry{it.Special(tar.TypeFifo, "fifo", 0, 0).With(func(h *tar.Header) { h.Mode = 0o777 })}, reason: again, want: "/fifo"},
		"program is no program":      {config: map[string]any{"Cmd": []string{"/junk"}}, files: []it.Entry{it.File("junk", strings.Repeat("\x7fELF\x02\x01\x01junk", 100)).With(func(h *tar.Header) { h.Mode = 0o755 })}, reason: refused, want: "/junk"},
		"program is empty":           {config: map[string]any{"Cmd": []string{"/empty"}}, files: []it.Entry{it.File("empty", "").With(func(h *tar.Header) { h.Mode = 0o755 })}, reason: refused, want: "/empty"},
		"program leads out":          {config: map[string]any{"Cmd": []string{"/out"}}, files: []it.Entry{it.Symlink("out", up+"bin/sh")}, reason: refused, want: "/out"},
		"program leads to itself":    {config: map[string]any{"Cmd": []string{"/loop"}}, files: []it.Entry{it.Symlink("loop", "loop")}, reason: refused, want: "/loop"},
		"interpreter is missing":     {config: map[string]any{"Cmd": []string{"/script"}}, files: []it.Entry{it.File("script", "#!/nosuch\n").With(func(h *tar.Header) { h.Mode = 0o755 })}, reason: refused, want: "/script"},
		"interpreter is itself":      {config: map[string]any{"Cmd": []string{"/script"}}, files: []it.Entry{it.File("script", "#!/script\n").With(func(h *tar.Header) { h.Mode = 0o755 })}, reason: refused, want: "/script"},
		"interpreter of a long name": {config: map[string]any{"Cmd": []string{"/script"}}, files: []it.Entry{it.File("script", "#!"+strings.Repeat("/a", 100_000)).With(func(h *tar.Header) { h.Mode = 0o755 })}, reason: refused, want: "/script"},
		"program with a NUL":         {config: map[string]any{"Cmd": []string{"/bin/busybox\x00", "true"}}, reason: refused, want: "its configuration holds a NUL"},
		"argument with a NUL":        {config: map[string]any{"Entrypoint": []string{"/bin/busybox"}, "Cmd": []string{"\x00"}}, reason: refused, want: "its configuration holds a NUL"},
		"program without a name":     {config: map[string]any{"Entrypoint": []string{""}, "Cmd": end}, reason: refused, want: "has no command of its own"},
		"no program":                 {config: map[string]any{}, reason: refused, want: "has no command of its own"},
		"program of a long name":     {config: map[string]any{"Cmd": []string{"/" + strings.Repeat("a", 1<<20)}}, reason: refused, want: "of 1048577 bytes"},
		"an argument of megabytes":   {config: map[string]any{"Cmd": []string{"/bin/busybox", "echo", strings.Repeat("a", 3<<20)}}, reason: refused, want: "of 3145728 bytes, at most 131071 can be passed"},
		"program of escapes":         {config: map[string]any{"Cmd": []string{"/\x1b[2J\u202e"}}, reason: refused, want: "command not found in the sandbox"},
		"command that is no list":    {config: map[string]any{"Cmd": "/bin/sh"}, reason: failed, want: "Cmd"},

		// Environment and directories.
		"a million variables":           {config: with("Env", many), reason: failed, want: "at most"},
		"variables of megabytes":        {config: with("Env", []string{"A=" + strings.Repeat("a", 4<<20)}), reason: refused, want: "of 4194306 bytes, at most 131071 can be passed"},
		"variables of megabytes in all": {config: with("Env", slices.Repeat([]string{"A=" + strings.Repeat("a", 100_000)}, 40)), want: "end"},
		"variables with newlines":       {config: map[string]any{"Cmd": sh(`echo "[$A]"`), "Env": []string{"A=x\ny\nLD_PRELOAD=z", "B\nC=1"}}, want: "[x\ny\nLD_PRELOAD=z]\nend"},
		"variables with NULs":           {config: with("Env", []string{"A=x\x00B=y"}), reason: refused, want: "its configuration holds a NUL"},
		"variables without names":       {config: map[string]any{"Cmd": sh("env"), "Env": []string{"=x", "y", "", "=", "PATH"}}, want: "end"},
		"variables that steer":          {config: map[string]any{"Cmd": sh("true"), "Env": []string{"LD_PRELOAD=/evil.so", "GODEBUG=x", "GOTRACEBACK=crash", "TMPDIR=" + secret}}, want: "end"},
		"PATH that leads out":           {config: map[string]any{"Cmd": []string{"nosuch"}, "Env": []string{"PATH=" + up + "bin:/proc/self/root/bin"}}, reason: refused, want: "command not found in the sandbox"},
		"directory is a file":           {config: with("WorkingDir", "/bin/busybox"), reason: refused, want: "/bin/busybox"},
		"directory below a file":        {config: with("WorkingDir", "/bin/busybox/x"), reason: refused, want: "/bin/busybox"},
		"directory leads out":           {config: map[string]any{"Cmd": sh("cat secret"), "WorkingDir": "/../../../.." + filepath.Dir(secret)}, want: "end"},
		"directory is a link out":       {config: map[string]any{"Cmd": sh("cat secret"), "WorkingDir": "/out"}, files: []it.Entry{it.Symlink("out", up+filepath.Dir(secret))}, reason: refused, want: "/out (file exists)"},
		"directory is relative":         {config: with("WorkingDir", "a/../../b"), want: "end"},
		"directory of a descriptor":     {config: map[string]any{"Cmd": sh("cat " + up + secret), "WorkingDir": "/proc/self/fd/7"}, reason: refused, want: "/proc/self/fd/7"},
		"directory with a NUL":          {config: with("WorkingDir", "/a\x00b"), reason: refused, want: "its configuration holds a NUL"},
		"directory of a long name":      {config: with("WorkingDir", strings.Repeat("/a", 1<<19)), reason: refused, want: "spec.root.image: its configuration has an argument, variable or path of 1048576 bytes"},
		"signal that does not exist":    {config: with("StopSignal", "SIGNOPE"), want: "end"},
		"signal out of range":           {config: with("StopSignal", "9999999999999999999"), want: "end"},
		"signal of escapes":             {config: with("StopSignal", "\x1b[2J\x00"), want: "end"},

		// What is asked for and is not the image's to decide.
		"volumes over everything":    {config: map[string]any{"Cmd": sh("ls -d /proc/self /dev/null; cat " + secret + " 2>&1"), "Volumes": map[string]any{"/proc": struct{}{}, "/dev": struct{}{}, "/etc/passwd": struct{}{}, "/": struct{}{}, "../x": struct{}{}, "\x1b[2J": struct{}{}}}, want: "/proc/self\ncat: can't open"},
		"ports that are none":        {config: with("ExposedPorts", map[string]any{"99999/tcp": struct{}{}, "-1": struct{}{}, "x/y/z": struct{}{}, "\x1b[2J": struct{}{}, "": struct{}{}}), want: "end"},
		"labels of megabytes":        {config: with("Labels", map[string]any{"a": strings.Repeat("a", 5<<20), strings.Repeat("b", 1<<20): "\x1b[2J"}), want: "end"},
		"health check of a shell":    {config: with("Healthcheck", map[string]any{"Test": []string{"CMD-SHELL", "reboot"}, "Interval": -1}), want: "end"},
		"fields that nobody knows":   {config: with("Privileged", true), whole: map[string]any{"hooks": map[string]any{"prestart": []any{}}, "mounts": []string{"/"}}, want: "end"},
		"of another architecture":    {config: plain, whole: map[string]any{"architecture": "riscv64"}, reason: failed, want: "riscv64"},
		"of a lie of architecture":   {config: map[string]any{"Cmd": []string{"/arm"}}, files: []it.Entry{it.File("arm", "\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 9)+"\x02\x00\xb7\x00\x01\x00\x00\x00"+strings.Repeat("\x00", 200)).With(func(h *tar.Header) { h.Mode = 0o755 })}, reason: refused, want: "/arm"},
		"of another system":          {config: plain, whole: map[string]any{"os": "windows"}, reason: failed, want: "windows"},
		"of no system":               {config: plain, whole: map[string]any{"os": "", "architecture": ""}, want: "end"},
		"history that is none":       {config: plain, whole: map[string]any{"history": "x"}, reason: failed, want: ""},
		"made in a year that is far": {config: plain, whole: map[string]any{"created": "9999999-01-01T00:00:00Z"}, reason: failed, want: ""},
		"mount points that lead out": {config: map[string]any{"Cmd": sh("echo x > /mnt/v/secret; cat /mnt/v/secret")}, files: []it.Entry{it.Symlink("mnt", up+filepath.Dir(secret))}, spec: "  volumes: [{name: v, mountPath: /mnt/v, tmpfs: {}}]\n", want: "end"},
		"sys leads to nothing":       {config: plain, files: []it.Entry{it.Symlink("sys", up+"nowhere")}, reason: again, want: `mount point "/sys"`},
		"proc leads to the root":     {config: plain, files: []it.Entry{it.Symlink("proc", "/")}, reason: refused, want: "mount point /proc: it leads to the root of the sandbox"},
		"mount point is a file":      {config: plain, files: []it.Entry{it.File("mnt", "x")}, spec: "  volumes: [{name: v, mountPath: /mnt/v, tmpfs: {}}]\n", reason: again, want: "/mnt"},
		"proc is a file":             {config: plain, files: []it.Entry{it.File("proc", "x")}, reason: again, want: "/proc"},
		"hosts is a directory":       {config: plain, files: []it.Entry{it.Dir("etc"), it.Dir("etc/hosts"), it.Dir("etc/resolv.conf")}, want: "end"},
		"hosts is a FIFO":            {config: plain, files: []it.Entry{it.Special(tar.TypeFifo, "etc/hosts", 0, 0)}, want: "end"},
		"hosts leads out":            {config: plain, files: []it.Entry{it.Symlink("etc/hosts", up+secret)}, want: "end"},
	}
	return out
}

// hostileConfig is the configuration of one of them, for its layers.
func (x hostileImage) bytes(layers ...[]byte) []byte {
	b := it.Config(x.config, layers...)
	if x.whole == nil {
		return b
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		panic(err)
	}
	maps.Copy(all, x.whole)
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return b
}

// Images that are made to confuse whoever starts them: what can't be is told in bounded
// time, with a reason and what helps, and what runs has got nothing of the host.
func TestAttacksImages(t *testing.T) {
	t.Parallel()
	h := newAttackHost(t, func(h *attackHost) string { return policyFor(h.work) })
	secret := h.canary + "/secret"
	h.good()
	h.untilGood()
	h.before = h.touched()
	busybox, err := os.ReadFile(h.work + "/rootfs/bin/busybox")
	h.must(err)
	program := it.File("bin/busybox", string(busybox)).With(func(hd *tar.Header) { hd.Mode = 0o755 })
	base := it.Tar(it.Dir("bin"), program, it.Symlink("bin/cat", "busybox"), it.Symlink("bin/ls", "busybox"), it.Symlink("bin/env", "busybox"))
	cases := map[string]string{}
	all := hostileImages(secret)
	// A third of them, another one each time; all with SANDBOXCTL_ATTACKS=all.
	third, tried := time.Now().UnixNano()%3, 0
	t.Logf("third %d", third)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		tried++
		if int64(tried)%3 != third && os.Getenv("SANDBOXCTL_ATTACKS") != "all" {
			continue
		}
		x := all[what]
		name := fmt.Sprintf("%s%d", h.prefix, len(cases))
		cases[name] = what
		dir := filepath.Join(h.allowed, name)
		own := it.Tar(x.files...)
		it.Layout(dir, "v1", x.bytes(base, own), base, own)
		h.write(filepath.Join(h.manifests, name+".yaml"), fmt.Sprintf("apiVersion: %s\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: {image: {ref: 'oci:%s:v1'}}\n  terminationGracePeriod: 0s\n%s", desired.APIVersion, name, dir, x.spec))
	}
	began := time.Now()
	told := func(o object) (reason, message string, ok bool) {
		i := slices.IndexFunc(o.Status.Conditions, func(c reconcile.Condition) bool { return c.Type == reconcile.CondReady })
		if i < 0 {
			return "", "", false
		}
		ready := o.Status.Conditions[i]
		if ready.Status == reconcile.True {
			return "", "", true
		}
		waits := []string{actual.ReasonPending, actual.ReasonPulling, actual.ReasonStarting, ""}
		return ready.Reason, ready.Message, !slices.Contains(waits, ready.Reason)
	}
	type verdict struct{ reason, message string }
	verdicts := map[string]verdict{} // what was told first: it is tried again since
	waiting := cases
	for deadline := began.Add(4 * time.Minute); len(waiting) > 0; time.Sleep(200 * time.Millisecond) {
		list := h.list()
		left := map[string]string{}
		for name, what := range waiting {
			reason, message, ok := told(list[name])
			if !ok {
				left[name] = what
				continue
			}
			verdicts[name] = verdict{reason, message}
		}
		if waiting = left; time.Now().After(deadline) {
			for name, what := range left {
				t.Errorf("%s: nothing is told: %+v", what, list[name].Status)
			}
			break
		}
	}
	t.Logf("%d images in %s", len(cases), time.Since(began).Round(time.Second))
	for name, what := range cases {
		x := all[what]
		reason, message := verdicts[name].reason, verdicts[name].message
		if strings.IndexFunc(message, untrusted.Obeyed) >= 0 || len(message) > 4000 {
			t.Errorf("%s: %d bytes: %.200q", what, len(message), message)
		}
		if reason != x.reason || !strings.Contains(message, x.want) && reason != "" {
			t.Errorf("%s: %s: %.300q, expected %s: %q", what, reason, message, x.reason, x.want)
		}
		if reason == "" {
			out := ""
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !strings.Contains(out, x.want); time.Sleep(50 * time.Millisecond) {
				b, _ := h.command("logs", name).CombinedOutput() // there may be none yet
				out = string(b)
			}
			if !strings.Contains(out, x.want) || strings.Contains(out, "canary\n") || strings.Contains(out, "canaryend") {
				t.Errorf("%s: it has printed %.500q, expected %q", what, out, x.want)
			}
		}
	}
	if info, err := os.Stat(h.work + "/daemon.log"); err != nil || info.Size() > 1<<20 {
		t.Errorf("the log of the daemon has %d bytes, %v", info.Size(), err)
	}
	rec, _, err := h.store.Get("good")
	if err != nil || rec == nil || rec.Phase != actual.PhaseRunning || rec.Attempt != 1 {
		t.Errorf("the good one: %+v %v", rec, err)
	}
	for name := range cases {
		h.must(os.Remove(filepath.Join(h.manifests, name+".yaml")))
	}
	h.until("nothing is left of them", func() bool { return h.touched() == h.before })
}
