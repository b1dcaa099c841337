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
	} {
		status, a := post(c.language, c.code, c.stdin)
		if status != c.status || a.ExitCode != c.exit || a.Stdout != c.stdout || !strings.HasPrefix(a.Error, c.failed) || (a.Error == "") != (c.failed == "") {
			t.Errorf("%s %q: %d %+v", c.language, c.code, status, a)
		}
	}
	if status, a := post("sh", "yes", ""); status != 200 || a.Error != "pass output on: the code wrote too much" || len(a.Stdout) != 64<<10 {
		t.Errorf("%d, %d bytes, %q", status, len(a.Stdout), a.Error)
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
