// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/desired/hostpolicy"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// idle carries out requests that last until they are cancelled, and says why they were.
type idle struct {
	begun chan *protocol.Request
	ended chan error
}

func (w *idle) command(ctx, _ context.Context, _ *peer, r *protocol.Request, _ *answer) error {
	w.begun <- r
	<-ctx.Done()
	w.ended <- context.Cause(ctx)
	return context.Cause(ctx)
}

func (*idle) list(context.Context, *peer, string) ([]protocol.Status, error) { return nil, nil }
func (*idle) remove(context.Context, *peer, string) error                    { return noSuch("x") }
func (*idle) settle()                                                        {}

// policyWith is a policy with these clients.
func policyWith(t *testing.T, text string) *hostpolicy.Policy {
	t.Helper()
	p, problems := hostpolicy.Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nclients: {"+text+"}\n"))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

// scene is a server that listens.
type scene struct {
	*Server
	work *idle
	stop func()
}

// serve has clients wait for so long with their requests.
func serve(t *testing.T, clients string, patience time.Duration) *scene {
	t.Helper()
	hosttest.NeedsRoot(t, "the socket must be root's")
	w := &idle{make(chan *protocol.Request, 500), make(chan error, 500)}
	policy := policyWith(t, clients)
	// Where others can come, so that the mode of the socket is all that keeps them off.
	dir, err := os.MkdirTemp("", "sandboxctl-clients-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	s := newServer(filepath.Join(dir, "client.sock"), func() (*hostpolicy.Policy, error) { return policy, nil }, w, slog.New(slog.DiscardHandler))
	s.apply(policy)
	s.patience = patience
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	until(t, "the socket", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.socket != nil && s.socket.gid == s.group })
	stopped := false
	stop := func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() {
		stop()
		must(t, os.RemoveAll(dir))
	})
	return &scene{s, w, stop}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (s *scene) connect(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// answerTo is the kind of the error that a message is answered with, "" for none.
func answerTo(t *testing.T, conn net.Conn, message string) (kind, text string) {
	t.Helper()
	_, _ = io.WriteString(conn, message) // it may not be read to its end
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return "closed", err.Error()
	}
	var r protocol.Response
	must(t, json.Unmarshal(line, &r))
	if r.Error == nil {
		return "", ""
	}
	return r.Error.Kind, r.Error.Message
}

func (s *scene) connections() int {
	s.bounds.mu.Lock()
	defer s.bounds.mu.Unlock()
	return s.bounds.all
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

const runLine = `{"version": 1, "op": "run", "sandbox": {}, "command": {"args": ["true"]}}` + "\n"

// What is no request is refused with a reason, whatever it is, and nothing of it stays.
func TestHostileRequests(t *testing.T) {
	s := serve(t, "", 300*time.Millisecond)
	before := descriptors(t)
	for message, want := range map[string]string{
		"\n":                                "expected a request",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n": "expected a request",
		`{"version": 1, "op": "hello"} {}` + "\n":                                                            "one request in a line",
		`{"version": 2, "op": "hello"}` + "\n":                                                               "version 2",
		`{"version": 1, "op": "hello", "user": 0}` + "\n":                                                    `unknown field "user"`,
		`{"version": 1, "op": "steal"}` + "\n":                                                               "expected one of hello",
		`{"version": 1, "op": "run"}` + "\n":                                                                 "sandbox: is missing",
		`{"version": 1, "op": "run", "sandbox": {}}` + "\n":                                                  "expected a command",
		`{"version": 1, "op": "run", "sandbox": {}, "command": {"args": []}}` + "\n":                         "expected a command",
		`{"version": 1, "op": "run", "sandbox": {}, "command": {"args": ["a\u0000b"]}}` + "\n":               "NUL",
		`{"version": 1, "op": "run", "sandbox": {}, "command": {"args": ["a"], "env": ["=b"]}}` + "\n":       "NAME=VALUE",
		`{"version": 1, "op": "run", "sandbox": {}, "command": {"args": ["a"], "dir": "b"}}` + "\n":          "absolute path in the sandbox",
		`{"version": 1, "op": "run", "sandbox": {"rootDir": "b"}, "command": {"args": ["a"]}}` + "\n":        "rootDir: expected an absolute path",
		`{"version": 1, "op": "run", "sandbox": {"volumes": ["./b:/b"]}, "command": {"args": ["a"]}}` + "\n": "absolute path",
		`{"version": 1, "op": "run", "name": "../x", "sandbox": {}, "command": {"args": ["a"]}}` + "\n":      "name: expected small letters",
		`{"version": 1, "op": "run", "timeout": -1, "sandbox": {}, "command": {"args": ["a"]}}` + "\n":       "timeout: expected 0s",
		`{"version": 1, "op": "exec", "command": {"args": ["a"]}}` + "\n":                                    "name: expected that",
		`{"version": 1, "op": "exec", "name": "a", "sandbox": {}, "command": {"args": ["a"]}}` + "\n":        "a sandbox for run",
		`{"version": 1, "op": "list", "command": {"args": ["a"]}}` + "\n":                                    "none of them for others",
		`{"version": 1, "op": "remove", "name": "a", "timeout": 5}` + "\n":                                   "none of them for others",
		strings.Repeat("x", protocol.MaxRequest+1000):                                                        "too long",
		strings.Repeat("[", 20000) + "\n":                                                                    "expected a request",
		`{"version":`:                                                                                        "did not come within",
		"":                                                                                                   "did not come within",
	} {
		conn := s.connect(t)
		kind, text := answerTo(t, conn, message)
		conn.Close()
		if kind != protocol.KindRefused || !strings.Contains(text, want) {
			t.Errorf("%.80q: %s %q, expected one with %q", message, kind, text, want)
		}
	}
	until(t, "the end of all connections", func() bool { return s.connections() == 0 })
	if n := len(s.work.begun); n != 0 {
		t.Errorf("%d requests were carried out", n)
	}
	for message, want := range map[string]string{
		`{"version": 1, "op": "hello"}` + "\n": "", `{"version": 1, "op": "list"}` + "\n": "", `{"version": 1, "op": "remove", "name": "x"}` + "\n": protocol.KindNotFound,
	} {
		conn := s.connect(t)
		if kind, text := answerTo(t, conn, message); kind != want {
			t.Errorf("%s: %s %s", message, kind, text)
		}
		conn.Close()
	}
	until(t, "the end of all connections", func() bool { return s.connections() == 0 })
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// A client that stands still, that says a byte now and then, or that never reads, is left in time.
func TestSlowClients(t *testing.T) {
	s := serve(t, "", 300*time.Millisecond)
	drip := s.connect(t)
	go func() {
		for i := range runLine {
			if _, err := drip.Write([]byte{runLine[i]}); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for range 20 {
		s.connect(t)
	}
	until(t, "the clients", func() bool { return s.connections() == 21 })
	until(t, "their end", func() bool { return s.connections() == 0 })
	if n := len(s.work.begun); n != 0 {
		t.Errorf("%d requests were carried out", n)
	}
}

// The end of a client is the end of its request: a connection that is closed, or half of it, or one
// on which more is said.
func TestClientGone(t *testing.T) {
	s := serve(t, "", 300*time.Millisecond)
	for what, leave := range map[string]func(*net.UnixConn) error{
		"closed":      (*net.UnixConn).Close,
		"half closed": (*net.UnixConn).CloseWrite,
		"more":        func(c *net.UnixConn) error { _, err := c.Write([]byte("more")); return err },
	} {
		conn := s.connect(t)
		_, err := io.WriteString(conn, runLine)
		must(t, err)
		<-s.work.begun
		must(t, leave(conn))
		if err := <-s.work.ended; !errors.Is(err, errClientGone) {
			t.Errorf("%s: ended by %v", what, err)
		}
	}
	until(t, "the end of all connections", func() bool { return s.connections() == 0 })
}

// A process that is killed is gone, also if a child of it has its connection.
func TestClientKilled(t *testing.T) {
	s := serve(t, "", 300*time.Millisecond)
	conn := s.connect(t)
	if p, err := peerOf(conn); err != nil || p.id == nil {
		hosttest.Lacks(t, "this kernel has no SO_PEERPIDFD (%v)", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{clientEnv + "=" + s.path, "PATH=" + os.Getenv("PATH")}
	_, err := cmd.StdinPipe() // the child lives until that is closed, by Wait
	must(t, err)
	must(t, cmd.Start())
	<-s.work.begun
	must(t, cmd.Process.Kill())
	if err := <-s.work.ended; !errors.Is(err, errClientGone) {
		t.Errorf("ended by %v", err)
	}
	_ = cmd.Wait()
}

const clientEnv = "SANDBOXCTL_TEST_CLIENT"

func TestMain(m *testing.M) {
	if path := os.Getenv(clientEnv); path != "" {
		leaveConnection(path)
	}
	os.Exit(m.Run())
}

// leaveConnection is a client with a child that has its connection, and lives for as long as its input.
func leaveConnection(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		os.Exit(1)
	}
	f, err := conn.(*net.UnixConn).File()
	if err != nil {
		os.Exit(1)
	}
	child := exec.Command("cat")
	child.Stdin = os.Stdin
	child.ExtraFiles = []*os.File{f}
	if child.Start() != nil {
		os.Exit(1)
	}
	if _, err := io.WriteString(conn, runLine); err != nil {
		os.Exit(1)
	}
	_ = child.Wait()
	os.Exit(0)
}

// However many come, so many are answered, and the others are told. Root is among the first.
func TestFlood(t *testing.T) {
	s := serve(t, "group: '4242', maxRuns: 3", time.Minute)
	var held []*net.UnixConn
	for range maxConnections {
		held = append(held, s.connect(t))
	}
	until(t, "the clients", func() bool { return s.connections() == maxConnections })
	for range 200 {
		if kind, text := answerTo(t, s.connect(t), ""); kind != protocol.KindBusy || !strings.Contains(text, "try again later") {
			t.Fatalf("%s %s", kind, text)
		}
	}
	for _, c := range held {
		c.Close()
	}
	until(t, "the end of all connections", func() bool { return s.connections() == 0 })
	// A user has fewer, and root is answered meanwhile.
	for range 3 {
		c, err := connectAs(t, s.path, 4000, 4000, 4242)
		must(t, err)
		held = append(held, c)
	}
	until(t, "the clients", func() bool { return s.connections() == 3 })
	c, err := connectAs(t, s.path, 4000, 4000, 4242)
	must(t, err)
	if kind, text := answerTo(t, c, ""); kind != protocol.KindBusy || !strings.Contains(text, "clients.maxRuns") {
		t.Errorf("%s %s", kind, text)
	}
	if kind, text := answerTo(t, s.connect(t), `{"version": 1, "op": "hello"}`+"\n"); kind != "" {
		t.Errorf("%s %s", kind, text)
	}
	if c, err = connectAs(t, s.path, 4001, 4242); err != nil {
		t.Fatal(err)
	}
	if kind, text := answerTo(t, c, `{"version": 1, "op": "hello"}`+"\n"); kind != "" {
		t.Errorf("another user: %s %s", kind, text)
	}
}

// connectAs connects as a user with a group and supplementary groups: the credentials are those of
// one thread, which ends.
func connectAs(t *testing.T, path string, uid, gid int, groups ...uint32) (conn *net.UnixConn, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		conn, err = connectAsThread(path, uid, gid, groups)
	}()
	<-done
	if conn != nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// The mode of the socket, and then the groups that the kernel knows, decide who is answered.
func TestPeers(t *testing.T) {
	s := serve(t, "group: '4242'", 300*time.Millisecond)
	hello := `{"version": 1, "op": "hello"}` + "\n"
	for what, c := range map[string]struct {
		uid, gid int
		groups   []uint32
		answered bool
	}{
		"root":                 {0, 0, nil, true},
		"by its group":         {4000, 4242, nil, true},
		"by one of its groups": {4000, 4000, []uint32{7, 4242, 9}, true},
		"one of many groups":   {4000, 4000, append(make([]uint32, 100), 4242), true},
		"another group":        {4000, 4000, []uint32{4241, 4243}, false},
		"root's group":         {4000, 0, []uint32{0}, false},
		"the number of it":     {4242, 4000, nil, false},
	} {
		conn, err := connectAs(t, s.path, c.uid, c.gid, c.groups...)
		if !c.answered {
			if !errors.Is(err, unix.EACCES) {
				t.Errorf("%s: connected (%v)", what, err)
			}
			// As by an administrator who opens the socket to everybody.
			must(t, os.Chmod(s.path, 0o666))
			conn, err = connectAs(t, s.path, c.uid, c.gid, c.groups...)
			must(t, err)
			must(t, os.Chmod(s.path, 0o660))
		}
		must(t, err)
		kind, text := answerTo(t, conn, hello)
		if (kind == "") != c.answered || kind != "" && kind != protocol.KindDenied {
			t.Errorf("%s: %s %s", what, kind, text)
		}
	}
	// The policy changes: to another group, to one that is not there, to none.
	for clients, mode := range map[string]os.FileMode{"group: '4243'": 0o660, "group: no-such-group-here": 0o600, "": 0o600} {
		s.apply(policyWith(t, clients))
		fi, err := os.Stat(s.path)
		must(t, err)
		if fi.Mode().Perm() != mode {
			t.Errorf("%q: mode %v", clients, fi.Mode())
		}
		if conn, err := connectAs(t, s.path, 4000, 4242); !errors.Is(err, unix.EACCES) {
			t.Errorf("%q: %v %v", clients, conn, err)
		}
	}
}

// What is wrong with the group is in the log once, however many passes find it, and once more after it
// was right.
func TestGroupIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := newServer("/no/such", nil, &idle{}, slog.New(slog.NewTextHandler(&log, nil)))
	for i, c := range []struct {
		group string
		lines int
	}{{"no-such-group-here", 1}, {"no-such-group-here", 1}, {"nor-this-one", 2}, {"'4242'", 2}, {"nor-this-one", 3}} {
		s.apply(policyWith(t, "group: "+c.group))
		if n := strings.Count(log.String(), "\n"); n != c.lines {
			t.Errorf("pass %d: %d lines, expected %d:\n%s", i, n, c.lines, log.String())
		}
	}
}

// Descriptors that a client sends are nobody's.
func TestDescriptorsOfClients(t *testing.T) {
	s := serve(t, "", time.Minute)
	conn := s.connect(t)
	until(t, "the client", func() bool { return s.connections() == 1 })
	before := descriptors(t)
	for range 10 {
		_, _, err := conn.WriteMsgUnix([]byte(" "), unix.UnixRights(0, 0, 0, 0, 0), nil)
		must(t, err)
	}
	_, err := io.WriteString(conn, runLine)
	must(t, err)
	<-s.work.begun
	if after := descriptors(t); after > before+2 { // the pidfd of the peer, and one for the poller
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// When the daemon ends, clients are told, and nobody listens any more.
func TestStopping(t *testing.T) {
	s := serve(t, "", 300*time.Millisecond)
	conn := s.connect(t)
	_, err := io.WriteString(conn, runLine)
	must(t, err)
	<-s.work.begun
	s.connect(t) // says nothing
	until(t, "the clients", func() bool { return s.connections() == 2 })
	s.stop()
	if err := <-s.work.ended; !errors.Is(err, errStopping) {
		t.Errorf("ended by %v", err)
	}
	if kind, text := answerTo(t, conn, ""); kind != protocol.KindStopping {
		t.Errorf("%s %s", kind, text)
	}
	if _, err := net.Dial("unix", s.path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("somebody listens: %v", err)
	}
}

// The socket of a daemon that was killed is replaced; that of another one is not, and nothing else
// either. Where others may write, nobody listens.
func TestListen(t *testing.T) {
	hosttest.NeedsRoot(t, "the socket must be root's")
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	must(t, os.Mkdir(dir, 0o755))
	path := filepath.Join(dir, "client.sock")
	first, err := listen(path, -1)
	must(t, err)
	if _, err := listen(path, -1); err == nil || !strings.Contains(err.Error(), "another daemon listens there") {
		t.Errorf("a second daemon: %v", err)
	}
	_ = first.UnixListener.Close() // as when it is killed
	second, err := listen(path, -1)
	must(t, err)
	fi, err := os.Lstat(path)
	must(t, err)
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	second.close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := listen(path, -1); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	must(t, os.Remove(path))
	must(t, os.Symlink("elsewhere", path))
	if _, err := listen(path, -1); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a link: %v", err)
	}
	must(t, os.Remove(path))
	for mode, want := range map[os.FileMode]string{0o777 | os.ModeSticky: "others than root may write", 0o775: "others than root may write"} {
		must(t, os.Chmod(dir, mode))
		if _, err := listen(path, -1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", mode, err)
		}
	}
	if _, err := listen(filepath.Join(dir, "no", "such"), -1); err == nil {
		t.Error("no directory")
	}
}

// connectAsThread changes the credentials of this thread for good, and connects.
func connectAsThread(path string, uid, gid int, groups []uint32) (*net.UnixConn, error) {
	if err := become(uid, gid, groups); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
