// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	programs "sandboxctl.dev/client"
	"sandboxctl.dev/launcher/proc/proctest"
)

// cmdExample builds a program of the examples into the directory bin of a script: example NAME.
func cmdExample(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: example NAME")
	}
	ts.Check(buildExample(args[0], ts.MkAbs("bin")))
}

func buildExample(name, dir string) error {
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "example-"+name), "../../examples/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the example %s: %w\n%s", name, err, out)
	}
	return nil
}

// memberEnv makes the test program a client: it runs a command with the options that are there.
const memberEnv = "SANDBOXCTL_TEST_MEMBER"

// beMember runs a command as a client on the socket that the first argument names.
func beMember() int {
	var o programs.Options
	if err := json.Unmarshal([]byte(os.Getenv(memberEnv)), &o); err != nil {
		fmt.Println(err)
		return 1
	}
	c, err := programs.Dial(os.Args[1])
	if err != nil {
		fmt.Println("dial:", err)
		return 1
	}
	var out bytes.Buffer
	o.Stdout, o.Stderr = &out, &out
	code, err := c.Run(context.Background(), o)
	fmt.Printf("%scode %d, denied %v, refused %v: %v\n", out.String(), code, errors.Is(err, programs.ErrDenied), errors.Is(err, programs.ErrRefused), err)
	if list, err := c.List(context.Background()); err != nil || len(list) != 0 {
		fmt.Println("list:", list, err)
	}
	for _, name := range []string{"web", "run-other"} {
		if _, err := c.Exec(context.Background(), name, programs.ExecOptions{Command: []string{"true"}}); !errors.Is(err, programs.ErrNotFound) {
			fmt.Println("exec:", err)
		}
		if err := c.Remove(context.Background(), name); !errors.Is(err, programs.ErrNotFound) {
			fmt.Println("remove:", err)
		}
	}
	return 0
}

// A user of the group that the host policy names runs commands, in sandboxes that reach nothing of
// the host, and knows of no sandbox of others; users outside are kept off.
func TestClientMember(t *testing.T) {
	requireHost(t)
	t.Parallel()
	dir, err := os.MkdirTemp("", "sandboxctl-member-") // where others can come
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	self, err := os.Executable()
	must(t, err)
	b, err := os.ReadFile(self)
	must(t, err)
	program := filepath.Join(dir, "member")
	must(t, proctest.WriteProgram(program, b, 0o755))

	h := hostStartedBy(t, `echo "clients: {group: '54321', maxTime: `+patience(time.Minute).String()+`}" >> "$SANDBOXCTL_POLICY"; export SANDBOXCTL_CLIENT_SOCKET=`+dir+"/c.sock")
	must(t, os.WriteFile(filepath.Join(h.manifests, "web.yaml"), []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [sleep, infinity]\n"), 0o644))
	h.until("the group", func() bool {
		fi, err := os.Stat(dir + "/c.sock")
		return err == nil && fi.Mode().Perm() == 0o660
	})
	// One of root's, which others must not see.
	root, err := programs.Dial(dir + "/c.sock")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := root.Run(ctx, programs.Options{Name: "run-other", Command: []string{"sleep", "infinity"}})
		ended <- err
	}()
	h.until("a sandbox of root's", func() bool {
		s, err := root.Get(t.Context(), "run-other")
		return err == nil && s.Phase == "Running"
	})
	for what, c := range map[string]struct {
		options programs.Options
		group   uint32
		want    string
	}{
		"a command":       {programs.Options{Command: []string{"sh", "-c", "echo out; id -u; exit 5"}}, 54321, "out\n0\ncode 5, denied false, refused false: <nil>\n"},
		"another group":   {programs.Options{Command: []string{"true"}}, 54320, "dial: user 65534 may not use the socket"},
		"a path":          {programs.Options{Command: []string{"true"}, Volumes: []string{h.work + ":/x"}}, 54321, "code 0, denied false, refused true: volumes: paths of the host are for root"},
		"a root":          {programs.Options{Command: []string{"true"}, RootDir: h.work + "/rootfs"}, 54321, "code 0, denied false, refused true: rootDir: directories of the host are for root"},
		"the network":     {programs.Options{Command: []string{"true"}, Network: "host"}, 54321, "code 0, denied false, refused true: network: the host's network is for root"},
		"a name":          {programs.Options{Command: []string{"true"}, Name: "web"}, 54321, "code 0, denied false, refused true: name: expected one that begins"},
		"a taken name":    {programs.Options{Command: []string{"true"}, Name: "run-other"}, 54321, "code 0, denied false, refused true: there is a sandbox run-other already"},
		"an image":        {programs.Options{Command: []string{"true"}, Image: "localhost.invalid/no/such:1"}, 54321, "code 0, denied false, refused false: the sandbox is not started: ImageNotFound: the store has no image localhost.invalid/no/such:1, and pullPolicy is Never: `sandboxctl image pull` or `import` it; for clients only images that clients.images"},
		"too much memory": {programs.Options{Command: []string{"true"}, Memory: "900Ti"}, 54321, "code 0, denied false, refused true: spec.resources.memory: the host policy"},
	} {
		text, err := json.Marshal(c.options)
		must(t, err)
		cmd := exec.Command(program, dir+"/c.sock")
		cmd.Env = []string{memberEnv + "=" + string(text)}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{c.group}}}
		out, _ := cmd.CombinedOutput()
		if !strings.HasPrefix(string(out), c.want) || c.group == 54321 && strings.Count(string(out), "\n") > strings.Count(c.want, "\n")+1 {
			t.Errorf("%s:\n%s", what, out)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.until("the end of it", func() bool {
		_, err := root.Get(t.Context(), "run-other")
		return errors.Is(err, programs.ErrNotFound)
	})
}

// The example service runs what strangers send, within its limits, and leaves nothing.
func TestClientService(t *testing.T) {
	requireHost(t)
	t.Parallel()
	h := daemonHost(t)
	must(t, buildExample("service", h.work))
	socket := filepath.Join(h.state, "client.sock")
	h.until("the socket", func() bool { _, err := programs.Dial(socket); return err == nil })
	log := filepath.Join(h.work, "service.log")
	f, err := os.Create(log)
	must(t, err)
	defer f.Close()
	cmd := exec.Command(filepath.Join(h.work, "example-service"), "--listen", "127.0.0.1:0", "--socket", socket, "--timeout", patience(5*time.Second).String(), "--memory", "128Mi")
	cmd.Stderr = f
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	var url string
	h.until("the service", func() bool {
		b, _ := os.ReadFile(log)
		_, rest, found := strings.Cut(string(b), "serving at ")
		url = strings.TrimSpace(rest)
		return found && strings.Contains(rest, "\n")
	})
	type answer struct {
		ExitCode              int
		Stdout, Stderr, Error string
	}
	post := func(language, code, stdin string) (status int, a answer) {
		body, err := json.Marshal(map[string]string{"language": language, "code": code, "stdin": stdin})
		must(t, err)
		r, err := http.Post(url, "application/json", bytes.NewReader(body))
		must(t, err)
		defer r.Body.Close()
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil && r.StatusCode != http.StatusBadRequest {
			t.Error(err)
		}
		return r.StatusCode, a
	}
	for _, c := range []struct {
		language, code, stdin string
		status, exit          int
		stdout, failed        string
	}{
		{"python", "import sys; print(sum(map(int, sys.stdin.read().split())))", "1 2 3", 200, 0, "6\n", ""},
		{"sh", "echo out; echo err >&2; exit 3", "", 200, 3, "out\n", ""},
		{"sh", "echo begun; sleep 1000", "", 200, 0, "begun\n", "timed out after"},
		{"sh", "grep -c : /proc/net/dev; test ! -e /etc/shadow && echo hidden", "", 200, 0, "1\nhidden\n", ""},
		{"python", "x = bytearray(500_000_000); print(len(x))", "", 200, 0, "", "out of memory"},
		{"cobol", "", "", 400, 0, "", ""},
		{"sh", "echo \x00", "", 500, 0, "", "the code could not be run"}, // the daemon refuses it
	} {
		status, a := post(c.language, c.code, c.stdin)
		if status != c.status || a.ExitCode != c.exit || a.Stdout != c.stdout || !strings.HasPrefix(a.Error, c.failed) || (a.Error == "") != (c.failed == "") {
			t.Errorf("%s %q: %d %+v", c.language, c.code, status, a)
		}
	}
	if status, a := post("sh", "yes", ""); status != 200 || a.Error != "pass output on: the code wrote too much" || len(a.Stdout) != 64<<10 {
		t.Errorf("%d, %d bytes, %q", status, len(a.Stdout), a.Error)
	}
	if b, err := os.ReadFile(log); err != nil || strings.Count(string(b), "run: command: there is a NUL") != 1 {
		t.Errorf("what was refused is not told to who keeps the service: %v\n%s", err, b)
	}
	// A client that goes takes its code with it.
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"language": "sh", "code": "sleep 1000"}`))
	must(t, err)
	gone := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		gone <- err
	}()
	list, err := programs.Dial(socket)
	must(t, err)
	count := func() int {
		l, err := list.List(t.Context())
		must(t, err)
		return len(l)
	}
	h.until("its sandbox", func() bool { return count() == 1 })
	cancel()
	if <-gone == nil {
		t.Error("it was answered")
	}
	h.until("its end", func() bool { return count() == 0 })
}

// A program looks at its sandbox while it runs, executes more in it, and ends it; what it asks for is
// what it gets; and a sentry that stands still holds nobody beyond the time.
func TestClientVerbs(t *testing.T) {
	requireHost(t)
	t.Parallel()
	h := daemonHost(t)
	socket := filepath.Join(h.state, "client.sock")
	var c *programs.Client
	h.until("the socket", func() (is bool) {
		var err error
		c, err = programs.Dial(socket)
		return err == nil
	})
	must(t, os.MkdirAll(filepath.Join(h.work, "shared"), 0o755))
	must(t, os.WriteFile(filepath.Join(h.work, "shared", "file"), []byte("shared"), 0o644))
	type result struct {
		code int
		err  error
	}
	var out bytes.Buffer
	run := func(o programs.Options) chan result {
		done := make(chan result, 1)
		go func() {
			code, err := c.Run(t.Context(), o)
			done <- result{code, err}
		}()
		h.until("its sandbox", func() bool {
			s, err := c.Get(t.Context(), o.Name)
			return err == nil && s.Phase == "Running"
		})
		return done
	}
	done := run(programs.Options{
		Name: "one", Command: []string{"sh", "-c", `cat /shared/file; pwd; echo "$A"; echo x >/shared/file 2>/dev/null || echo "read only"; touch /data/kept; exec sleep infinity`}, Stdout: &out,
		Volumes: []string{filepath.Join(h.work, "shared") + ":/shared:ro", "kept:/data"}, Env: []string{"A=b c"}, Dir: "/tmp", Labels: map[string]string{"app": "x"}, Memory: "96Mi",
	})
	if s, err := c.Get(t.Context(), "one"); err != nil || s.Labels["app"] != "x" {
		t.Errorf("%+v %v", s, err)
	}
	var more bytes.Buffer
	h.until("the command", func() bool {
		more.Reset()
		code, err := c.Exec(t.Context(), "one", programs.ExecOptions{Command: []string{"sh", "-c", "test -e /data/kept && cat && echo err >&2; exit 4"}, Stdin: strings.NewReader("input"), Stdout: &more, Stderr: &more})
		must(t, err)
		return code == 4 && more.Len() > 0
	})
	if more.String() != "inputerr\n" {
		t.Errorf("output %q", more.String())
	}
	// What is left in the background does not keep its caller; one whose time is over is ended.
	if code, err := c.Exec(t.Context(), "one", programs.ExecOptions{Command: []string{"sh", "-c", "sleep 1000 & echo left"}, Stdout: &more}); code != 0 || err != nil || !strings.HasSuffix(more.String(), "left\n") {
		t.Errorf("%d %v %q", code, err, more.String())
	}
	if _, err := c.Exec(t.Context(), "one", programs.ExecOptions{Command: []string{"sleep", "1000"}, Timeout: time.Second}); !errors.Is(err, programs.ErrTimeout) {
		t.Errorf("%v", err)
	}
	if code, err := c.Exec(t.Context(), "one", programs.ExecOptions{Command: []string{"/no/such"}}); code != 127 || !errors.Is(err, programs.ErrCommand) {
		t.Errorf("%d %v", code, err)
	}
	must(t, c.Remove(t.Context(), "one"))
	if r := <-done; !errors.Is(r.err, programs.ErrEnded) || out.String() != "shared/tmp\nb c\nread only\n" {
		t.Errorf("%+v, output %q", r, out.String())
	}
	for _, err := range []error{c.Remove(t.Context(), "one"), func() error { _, err := c.Get(t.Context(), "one"); return err }()} {
		if !errors.Is(err, programs.ErrNotFound) {
			t.Error(err)
		}
	}
	out.Reset()
	if code, err := c.Run(t.Context(), programs.Options{RootDir: filepath.Join(h.work, "rootfs"), Command: []string{"/bin/busybox", "echo", "root"}, Stdout: &out}); code != 0 || err != nil || out.String() != "root\n" {
		t.Errorf("%d %v %q", code, err, out.String())
	}
	// What can't be started, and what makes no sense.
	for what, c2 := range map[string]struct {
		o    programs.Options
		want error
	}{
		"no image":     {programs.Options{Image: "local:nosuch", Command: []string{"true"}}, programs.ErrStart},
		"two roots":    {programs.Options{Image: "local:a", RootDir: "/b", Command: []string{"true"}}, programs.ErrRefused},
		"memory":       {programs.Options{Memory: "lots", Command: []string{"true"}}, programs.ErrRefused},
		"not allowed":  {programs.Options{RootDir: "/etc", Command: []string{"true"}}, programs.ErrRefused},
		"no directory": {programs.Options{RootDir: filepath.Join(h.work, "nosuch"), Command: []string{"true"}}, programs.ErrStart},
	} {
		if _, err := c.Run(t.Context(), c2.o); !errors.Is(err, c2.want) {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Its sentry stands still before it is asked to start the command, and while that runs.
	for _, running := range []bool{false, true} {
		began := time.Now()
		done = run(programs.Options{Name: "stands", Command: []string{"sleep", "infinity"}, Timeout: patience(4 * time.Second)})
		rec, _, err := h.store.Get("stands")
		must(t, err)
		sentry, err := process.Open(*rec.Sentry)
		must(t, err)
		defer sentry.Close()
		for running {
			more.Reset()
			_, err := c.Exec(t.Context(), "stands", programs.ExecOptions{Command: []string{"sh", "-c", "cat /proc/*/cmdline"}, Stdout: &more})
			must(t, err)
			running = !strings.Contains(more.String(), "sleep\x00infinity")
		}
		must(t, sentry.Signal(unix.SIGSTOP))
		if r := <-done; !errors.Is(r.err, programs.ErrTimeout) || time.Since(began) > patience(30*time.Second) {
			t.Errorf("after %s: %v", time.Since(began), r.err)
		}
	}
	h.until("the end of all sandboxes", func() bool {
		list, err := c.List(t.Context())
		return err == nil && len(list) == 0
	})
}
