// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/wire"
)

// fakeSentry answers each connection as told. It is as hostile as it likes.
func fakeSentry(t *testing.T, answer func(c *net.UnixConn, request string)) *Control {
	t.Helper()
	return fakeSentryOf(t, func(c *net.UnixConn) {
		buf := make([]byte, 64<<10)
		n, _ := c.Read(buf)
		answer(c, string(buf[:n]))
	})
}

// fakeSentryOf serves each connection as told.
func fakeSentryOf(t *testing.T, serve func(c *net.UnixConn)) *Control {
	t.Helper()
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, ControlSocket), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c, err := dialControl(t.Context(), int(d.Fd()), "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// hostile is an answer and the error it must end in.
type hostile struct {
	answer func(*net.UnixConn, string)
	want   string
}

// within is how long the caller waits: short where no answer is to come.
func (h *hostile) within() time.Duration {
	if h.want == " time" {
		return 300 * time.Millisecond
	}
	return 30 * time.Second
}

func say(text string) func(*net.UnixConn, string) {
	return func(c *net.UnixConn, _ string) { _, _ = c.Write([]byte(text)) }
}

// Who waits for a sentry in a frozen group is told so. A checkpoint is not even asked for:
// it would end the sandbox after the thaw, when nobody has its state any more.
func TestFrozenSentry(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 8)
	c := fakeSentryOf(t, func(c *net.UnixConn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			asked <- string(buf[:n])
		}
	})
	above := t.TempDir()
	group := filepath.Join(above, "group")
	if err := os.Mkdir(group, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{above + "/cgroup.freeze": "1\n", group + "/cgroup.freeze": "0\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.cgroups = []string{t.TempDir(), group}
	if err := c.Checkpoint(t.Context(), false, true, nil); err == nil || !strings.Contains(err.Error(), "cgroup "+above+" is frozen") {
		t.Errorf("checkpoint: %v", err)
	}
	if len(asked) > 0 {
		t.Errorf("asked for %s", <-asked)
	}
	err := c.callUntil(t.Context(), time.Now().Add(100*time.Millisecond), wire.MethodProcesses, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "no answer in time: the cgroup "+above+" is frozen") {
		t.Errorf("call: %v", err)
	}
}

// A sentry that is stopped is given no descriptors: they would stay open in its
// queue, and a reader of our output would wait for it.
// A session that was prepared is the one that Execute uses. Without Execute it ends with
// the connection, whatever the sentry answers, and the sentry sees that.
func TestPrepare(t *testing.T) {
	t.Parallel()
	const opened, refused, odd = `{"success":true,"err":"","result":null}`, `{"success":false,"err":"no such sink","result":null}`, `{"succ`
	for _, answer := range []string{opened, refused, odd, ""} {
		session := make(chan *os.File, 1)
		methods := make(chan string, 8)
		c := fakeSentryOf(t, func(c *net.UnixConn) {
			for {
				buf, oob := make([]byte, 64<<10), make([]byte, 64)
				n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
				if err != nil || n == 0 {
					return
				}
				if fds := received(oob[:oobn]); len(fds) > 0 {
					session <- fds[0]
				}
				var r struct{ Method string }
				_ = json.Unmarshal(buf[:n], &r)
				methods <- r.Method
				if _, err := c.Write([]byte(answer)); err != nil || answer == "" {
					return
				}
			}
		})
		c.Prepare(t.Context())
		theirs := <-session
		if answer == opened {
			// Execute asks for no second one.
			_, _ = c.App().Execute(t.Context(), wire.ExecArgs{})
			if first, second := <-methods, <-methods; first != wire.MethodSession || second != wire.MethodExecuteAsync {
				t.Errorf("asked for %s and %s", first, second)
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("%q: %v", answer, err)
		}
		if err := theirs.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(theirs); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the session is open: %v", answer, err)
		}
		_ = theirs.Close()
	}
}

// received are the files of a message.
func received(oob []byte) (files []*os.File) {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m)
		for _, fd := range fds {
			_ = unix.SetNonblock(fd, true)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

func TestExecuteOnStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// Nobody accepts: the kernel does, as for a process that is stopped.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, ControlSocket), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := dialControl(t.Context(), int(d.Fd()), "web")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.App().Execute(ctx, wire.ExecArgs{}, w, w, w); err == nil {
		t.Error("a sentry that does not answer has started something")
	}
	c.Close()
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v; expected the end of the output", n, err)
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	var got string
	c := fakeSentry(t, func(c *net.UnixConn, r string) {
		got = r
		_, _ = c.Write([]byte(`{"success":true,"err":"","result":[{"uid":1,"pid":2,"cmd":"sh"}]}`))
	})
	ps, err := c.App().Processes(t.Context())
	if err != nil || len(ps) != 1 || ps[0].PID != 2 {
		t.Errorf("%v %v", ps, err)
	}
	if !strings.Contains(got, `"method":"containerManager.Processes"`) || !strings.Contains(got, `"arg":"web"`) {
		t.Errorf("sent %s", got)
	}
	if pid, err := c.PeerPID(); err != nil || pid != os.Getpid() {
		t.Errorf("peer %d %v", pid, err)
	}
}

func TestControlHostile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]hostile{
		"closes":       {func(*net.UnixConn, string) {}, "closed the connection"},
		"says no":      {say(`{"success":false,"err":"nope"}`), "nope"},
		"garbage":      {say("\x00\x01 garbage"), "read answer"},
		"cut":          {say(`{"success":true,"res`), "closed the connection"},
		"wrong type":   {say(`{"success":true,"result":{"a":1}}`), "decode answer"},
		"huge":         {func(c *net.UnixConn, _ string) { flood(c, `{"success":true,"result":"`, "x") }, "longer than"},
		"huge error":   {func(c *net.UnixConn, _ string) { flood(c, `{"success":false,"err":"`, "x") }, "longer than"},
		"deep":         {func(c *net.UnixConn, _ string) { flood(c, `{"success":true,"result":`, "[") }, "read answer"},
		"never":        {func(c *net.UnixConn, _ string) { time.Sleep(2 * time.Second) }, " time"},
		"byte by byte": {drip, " time"},
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), c.within(), errors.New("out of time"))
		start := time.Now()
		_, err := fakeSentry(t, c.answer).App().Processes(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		if took := time.Since(start); took > c.within()+10*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
}

// A connection that has ended says so however far the caller got.
func TestControlClosed(t *testing.T) {
	t.Parallel()
	c := fakeSentry(t, func(*net.UnixConn, string) {})
	for range 3 {
		if _, err := c.App().Processes(t.Context()); err == nil || !strings.Contains(err.Error(), "the sentry closed the connection") {
			t.Error(err)
		}
	}
}

func flood(c *net.UnixConn, head, more string) {
	_, _ = c.Write([]byte(head))
	block := []byte(strings.Repeat(more, 64<<10))
	for range 200 {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func drip(c *net.UnixConn, _ string) {
	for range 40 {
		if _, err := c.Write([]byte(" ")); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// What is asked of a container names it, and of no other one.
func TestContainerNamed(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(context.Context, *Container) error{
		"start":   func(ctx context.Context, c *Container) error { return c.StartRoot(ctx) },
		"state":   func(ctx context.Context, c *Container) error { _, err := c.State(ctx); return err },
		"signal":  func(ctx context.Context, c *Container) error { return c.Signal(ctx, unix.SIGTERM, false) },
		"one":     func(ctx context.Context, c *Container) error { return c.SignalPID(ctx, unix.SIGTERM, 7) },
		"wait":    func(ctx context.Context, c *Container) error { _, err := c.Wait(ctx); return err },
		"command": func(ctx context.Context, c *Container) error { _, err := c.WaitPID(ctx, 7); return err },
		"list":    func(ctx context.Context, c *Container) error { _, err := c.Processes(ctx); return err },
		"use":     func(ctx context.Context, c *Container) error { _, err := c.Stats(ctx); return err },
	} {
		for _, id := range []string{"web", "sidecar"} {
			requests := make(chan string, 1)
			control := fakeSentry(t, func(c *net.UnixConn, r string) {
				requests <- r
				_, _ = c.Write([]byte(`{"success":false,"err":"no"}`))
			})
			c := control.App()
			if id != "web" {
				c = &Container{Control: control, id: id}
			}
			if err := ask(t.Context(), c); err == nil {
				t.Errorf("%s: no error", name)
			}
			r := <-requests
			if !strings.Contains(r, `"`+id+`"`) || strings.Contains(r, `"web"`) != (id == "web") {
				t.Errorf("%s of %s: sent %s", name, id, r)
			}
		}
	}
}

// Who connects while the sentry has a full queue waits for it.
func TestDialBusy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, ControlSocket)}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	// One that gave up is not waited for.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const many = 10
	errs := make(chan error, many)
	for range many {
		go func() {
			c, err := dialControl(t.Context(), int(d.Fd()), "web")
			if err == nil {
				err = c.Close()
			}
			errs <- err
		}()
	}
	time.Sleep(100 * time.Millisecond) // until the queue is full
	for range many {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(c)
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
