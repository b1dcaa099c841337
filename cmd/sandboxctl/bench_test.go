// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer/sandboxlog"
)

// The benchmarks compare with runsc of the same gVisor, which `make bench`
// builds: each figure is the median of runs that alternate, since the machine
// is never quiet. docs/internals/performance.md says what they mean.

// host is a daemon on a scratch directory.
type host struct {
	b         testing.TB
	work      string
	manifests string
	state     string
	daemon    *exec.Cmd
	store     *actual.Store
}

// benchHost runs a daemon, which inherits the files given, and whose policy
// allows everything below its directory.
func benchHost(b testing.TB, inherit ...*os.File) *host {
	b.Helper()
	return hostStartedBy(b, "", inherit...)
}

// hostStartedBy is benchHost with a daemon that a shell starts after the
// commands given.
func hostStartedBy(b testing.TB, shell string, inherit ...*os.File) *host {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("sandboxes need root")
	}
	work := b.TempDir()
	// Whatever the umask is: manifests are not believed where others may write.
	if err := os.Chmod(work, 0o755); err != nil {
		b.Fatal(err)
	}
	h := &host{b: b, work: work, manifests: filepath.Join(work, "m"), state: filepath.Join(work, "s")}
	h.must(os.Mkdir(h.manifests, 0o755))
	h.must(os.WriteFile(filepath.Join(work, "policy.yaml"), []byte(policyFor(work)), 0o644))
	h.rootfs()
	h.daemon = h.command("daemon", "--allow-mass-delete")
	if shell != "" {
		env := h.daemon.Env
		h.daemon = exec.Command("bash", append([]string{"-c", shell + "\nexec \"$@\"", "bash"}, h.daemon.Args...)...)
		h.daemon.Env = env
	}
	log, err := os.Create(filepath.Join(work, "daemon.log"))
	h.must(err)
	h.daemon.Stderr = log
	h.daemon.ExtraFiles = inherit // not close-on-exec
	h.must(h.daemon.Start())
	b.Cleanup(func() {
		// runsc leaves a mount in its root directory.
		_ = unix.Unmount(h.work+"/runsc/null-netns", unix.MNT_DETACH)
		h.clear()
		_ = h.daemon.Process.Signal(unix.SIGTERM)
		if err := h.daemon.Wait(); err != nil {
			b.Errorf("daemon: %v", err)
		}
		if h.store != nil {
			h.store.Close()
		}
	})
	h.until("the daemon", func() bool {
		h.store, err = actual.OpenStoreReadOnly(h.state)
		return err == nil
	})
	return h
}

func (h *host) must(err error) {
	h.b.Helper()
	if err != nil {
		h.b.Fatal(err)
	}
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), args...)
	cmd.Env = append(os.Environ(), "SANDBOXCTL_MANIFESTS="+h.manifests, "SANDBOXCTL_STATE="+h.state, "SANDBOXCTL_POLICY="+filepath.Join(h.work, "policy.yaml"))
	return cmd
}

func (h *host) until(what string, ok func() bool) {
	h.b.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			h.b.Fatalf("%s: not in two minutes", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// rootfs is a root of one static file, for both.
func (h *host) rootfs() {
	h.b.Helper()
	bin := filepath.Join(h.work, "rootfs", "bin")
	h.must(os.MkdirAll(bin, 0o755))
	busybox, err := exec.LookPath("busybox")
	h.must(err)
	data, err := os.ReadFile(busybox)
	h.must(err)
	h.must(os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755))
}

// drop renames a manifest into the directory and returns when that was.
func (h *host) drop(name, spec string) time.Time {
	h.b.Helper()
	return h.dropRoot(name, "{dir: "+h.work+"/rootfs}", spec)
}

// dropRoot is drop with another root.
func (h *host) dropRoot(name, root, spec string) time.Time {
	h.b.Helper()
	text := fmt.Sprintf("apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: %s}\nspec:\n  root: %s\n%s", name, root, spec)
	tmp := filepath.Join(h.work, name+".tmp")
	h.must(os.WriteFile(tmp, []byte(text), 0o644))
	at := time.Now()
	h.must(os.Rename(tmp, filepath.Join(h.manifests, name+".yaml")))
	return at
}

func (h *host) clear() {
	h.b.Helper()
	files, err := filepath.Glob(filepath.Join(h.manifests, "*.yaml"))
	h.must(err)
	for _, f := range files {
		h.must(os.Remove(f))
	}
	if h.store == nil {
		return // the daemon never came up
	}
	h.until("removal", func() bool {
		l, err := h.store.List()
		return err == nil && len(l.Records) == 0
	})
}

// firstLine is when the application of an attempt wrote its first line.
func (h *host) firstLine(name string, attempt int64) time.Time {
	h.b.Helper()
	var at time.Time
	dir := filepath.Join(h.state, "sandboxes", name, "logs", strconv.FormatInt(attempt, 10))
	h.until("output of "+name, func() bool {
		f := sandboxlog.NewFollower(os.DirFS(dir), "app.log")
		defer f.Close()
		err := f.Next(func(e sandboxlog.Entry) error {
			at = e.At
			return io.EOF
		})
		return errors.Is(err, io.EOF)
	})
	return at
}

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// runsc of the same gVisor, "" if there is none.
func runsc(b *testing.B) string {
	path := filepath.Join(binDir, "runsc")
	if _, err := os.Stat(path); err != nil {
		b.Skipf("runsc is not there to compare with: %v", err)
	}
	return path
}

// bundle makes an OCI bundle of the same root and mounts for runsc.
func (h *host) bundle(name string, args ...string) string {
	h.b.Helper()
	dir := filepath.Join(h.work, "bundle-"+name)
	h.must(os.MkdirAll(dir, 0o755))
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = strconv.Quote(a)
	}
	config := fmt.Sprintf(`{"ociVersion":"1.0.2","root":{"path":%q},"process":{"args":[%s],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]},
	 "mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs"},
	  {"destination":"/dev/pts","type":"devpts","source":"devpts"},{"destination":"/dev/shm","type":"tmpfs","source":"shm"},
	  {"destination":"/sys","type":"sysfs","source":"sysfs"}],"linux":{"namespaces":[{"type":"network"},{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}}`,
		h.work+"/rootfs", strings.Join(quoted, ","))
	h.must(os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644))
	return dir
}

func (h *host) runscArgs(args ...string) []string {
	return append([]string{"--root=" + h.work + "/runsc", "--network=none", "--ignore-cgroups"}, args...)
}

const pairs = 21

// BenchmarkStart: a manifest is renamed into the directory → the first line of
// its application, against `runsc run` → the first line.
func BenchmarkStart(b *testing.B) { benchStart(b, "") }

// BenchmarkStartNoInit: the same without an init process.
func BenchmarkStartNoInit(b *testing.B) { benchStart(b, "  init: false\n") }

func benchStart(b *testing.B, more string) {
	h := benchHost(b)
	run := runsc(b)
	bundle := h.bundle("start", "/bin/busybox", "echo", "up")
	var ours, theirs []time.Duration
	for i := range pairs {
		name := fmt.Sprintf("s%d", i)
		at := h.drop(name, "  command: [/bin/busybox, echo, up]\n  restartPolicy: Never\n"+more)
		ours = append(ours, h.firstLine(name, 1).Sub(at))
		h.clear()

		cmd := exec.Command(run, h.runscArgs("run", "--bundle", bundle, name)...)
		out, err := cmd.StdoutPipe()
		h.must(err)
		at = time.Now()
		h.must(cmd.Start())
		_, err = bufio.NewReader(out).ReadString('\n')
		theirs = append(theirs, time.Since(at))
		h.must(err)
		h.must(cmd.Wait())
	}
	report(b, "start", median(ours), median(theirs))
}

func report(b *testing.B, what string, ours, theirs time.Duration) {
	b.ReportMetric(ms(ours), "ms-ours")
	b.ReportMetric(ms(theirs), "ms-runsc")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
	b.ReportMetric(0, "ns/op")
	b.Logf("%s: %s, runsc %s", what, ours, theirs)
}

// BenchmarkRestart: kill -9 of the sentry → the first line of the next one,
// without a delay by backoff.
func BenchmarkRestart(b *testing.B) {
	h := benchHost(b)
	h.drop("web", "  command: [/bin/busybox, sh, -c, 'echo up; exec /bin/busybox sleep 1000']\n  backoff: {initial: 0s}\n")
	h.firstLine("web", 1)
	var took []time.Duration
	for attempt := int64(1); attempt <= pairs; attempt++ {
		var rec *actual.Record
		h.until("running", func() bool {
			rec, _, _ = h.store.Get("web")
			return rec != nil && rec.Phase == actual.PhaseRunning && rec.Attempt == attempt
		})
		p, err := actual.Open(*rec.Sentry)
		h.must(err)
		at := time.Now()
		h.must(p.Signal(unix.SIGKILL))
		took = append(took, h.firstLine("web", attempt+1).Sub(at))
		p.Close()
	}
	b.ReportMetric(ms(median(took)), "ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkVersion: how soon `version` says which one it is, and how soon it has
// asked sentry and gofer.
func BenchmarkVersion(b *testing.B) {
	var first, all []time.Duration
	for range pairs {
		cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), "version")
		out, err := cmd.StdoutPipe()
		must(b, err)
		at := time.Now()
		must(b, cmd.Start())
		r := bufio.NewReader(out)
		_, err = r.ReadString('\n')
		must(b, err)
		first = append(first, time.Since(at))
		_, err = io.Copy(io.Discard, r)
		must(b, err)
		must(b, cmd.Wait())
		all = append(all, time.Since(at))
	}
	b.ReportMetric(ms(median(first)), "ms-first-line")
	b.ReportMetric(ms(median(all)), "ms")
	b.ReportMetric(0, "ns/op")
}

const fifty = 50

// BenchmarkFifty: what 50 sandboxes cost, and what the verbs take with them.
func BenchmarkFifty(b *testing.B) {
	h := benchHost(b)
	run := runsc(b)
	for i := range fifty {
		h.drop(fmt.Sprintf("s%d", i), "  command: [/bin/busybox, sleep, '100000']\n  terminationGracePeriod: 0s\n")
	}
	h.until("fifty", func() bool {
		l, err := h.store.List()
		n := 0
		if err == nil {
			for _, r := range l.Records {
				if r.Phase == actual.PhaseRunning {
					n++
				}
			}
		}
		return n == fifty
	})
	time.Sleep(3 * time.Second)
	l, err := h.store.List()
	h.must(err)
	var sentries, gofers int64
	for _, r := range l.Records {
		sentries += pss(b, r.Sentry.PID)
		gofers += pss(b, r.Gofer.PID)
	}
	b.ReportMetric(float64(pss(b, h.daemon.Process.Pid))/1024, "MiB-daemon")
	b.ReportMetric(float64(sentries)/fifty/1024, "MiB-sentry")
	b.ReportMetric(float64(gofers)/fifty/1024, "MiB-gofer")
	var idle []time.Duration
	for range 3 {
		before := cpu(b, h.daemon.Process.Pid)
		time.Sleep(30 * time.Second)
		idle = append(idle, cpu(b, h.daemon.Process.Pid)-before)
	}
	b.ReportMetric(ms(median(idle)), "ms-idle-cpu-30s")

	var get, list, ours, theirs []time.Duration
	for i := range fifty {
		h.clearOne(run, i) // nothing of runsc of an earlier run
	}
	for i := range fifty {
		bundle := h.bundle(fmt.Sprintf("r%02d", i), "/bin/busybox", "sleep", "100000")
		// Without pipes: runsc's sandbox keeps the streams of its creator.
		h.must(exec.Command(run, h.runscArgs("run", "--detach", "--bundle", bundle, fmt.Sprintf("r%02d", i))...).Run())
	}
	defer func() {
		for i := range fifty {
			h.clearOne(run, i)
		}
	}()
	var rs, rg int64
	for i := range fifty {
		s, g := runscPSS(b, h.work, i)
		rs, rg = rs+s, rg+g
	}
	b.ReportMetric(float64(rs)/fifty/1024, "MiB-runsc-sentry")
	b.ReportMetric(float64(rg)/fifty/1024, "MiB-runsc-gofer")
	for i := range pairs {
		get = append(get, h.time(h.command("get")))
		list = append(list, h.time(exec.Command(run, h.runscArgs("list")...)))
		ours = append(ours, h.time(h.command("exec", fmt.Sprintf("s%d", i), "--", "/bin/busybox", "true")))
		theirs = append(theirs, h.time(exec.Command(run, h.runscArgs("exec", fmt.Sprintf("r%02d", i), "/bin/busybox", "true")...)))
	}
	b.ReportMetric(ms(median(get)), "ms-get")
	b.ReportMetric(ms(median(list)), "ms-runsc-list")
	b.ReportMetric(ms(median(ours)), "ms-exec")
	b.ReportMetric(ms(median(theirs)), "ms-runsc-exec")
	b.ReportMetric(0, "ns/op")
}

// runsc takes an id for a prefix of others, hence the two digits.
func (h *host) clearOne(run string, i int) {
	_ = exec.Command(run, h.runscArgs("delete", "--force", fmt.Sprintf("r%02d", i))...).Run()
}

func (h *host) time(cmd *exec.Cmd) time.Duration {
	h.b.Helper()
	at := time.Now()
	h.must(cmd.Run())
	return time.Since(at)
}

// pss is the proportional set size of a process, in KiB.
func pss(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "Pss:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no Pss")
	return 0
}

// runscPSS finds runsc's sandbox and gofer process of an id, and their sizes.
func runscPSS(b *testing.B, work string, i int) (sandbox, gofer int64) {
	b.Helper()
	id := fmt.Sprintf("r%02d", i)
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(text), "--root="+work+"/runsc\x00") || !strings.HasSuffix(string(text), "\x00"+id+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			b.Fatal(err)
		}
		switch args := strings.Split(string(text), "\x00"); {
		case strings.HasSuffix(args[0], "runsc-sandbox"):
			sandbox = pss(b, pid)
		case strings.HasSuffix(args[0], "runsc-gofer"):
			gofer = pss(b, pid)
		}
	}
	return sandbox, gofer
}

// cpu is the processor time of all threads of a process.
func cpu(b testing.TB, pid int) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		b.Fatal(err)
	}
	var sum int64
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum)
}
