// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/client/protocol"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon answers requests in the place of a daemon.
type daemon struct {
	t    *testing.T
	conn *net.UnixConn
}

// listen returns the path of a socket on which each request is answered by a function.
func listen(t *testing.T, answer func(d *daemon, r *protocol.Request)) string {
	t.Helper()
	// Too long for the address of a socket.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	must(t, os.Mkdir(dir, 0o700))
	old, err := os.Open(dir)
	must(t, err)
	defer old.Close()
	l, err := net.Listen("unix", "/proc/self/fd/"+strconv.Itoa(int(old.Fd()))+"/s")
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				line, err := protocol.ReadLine(conn, protocol.MaxRequest)
				if err != nil {
					return
				}
				r, err := protocol.DecodeRequest(line)
				if err != nil {
					t.Error(err)
					return
				}
				d := &daemon{t, conn.(*net.UnixConn)}
				if r.Op == protocol.OpHello {
					d.send(&protocol.Response{Done: true})
					return
				}
				answer(d, r)
			}()
		}
	}()
	return filepath.Join(dir, "s")
}

func (d *daemon) send(r *protocol.Response, files ...*os.File) {
	line, err := protocol.Encode(r)
	if err != nil {
		d.t.Error(err)
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	// In two pieces: a message does not come at once.
	half := len(line) / 2
	if _, _, err := d.conn.WriteMsgUnix(line[:half], oob, nil); err == nil {
		_, err = d.conn.Write(line[half:])
		if err != nil {
			d.t.Log(err)
		}
	}
}

// pipes are those of a command: what it writes to, and what it reads from.
type pipes struct{ out, errs, in *os.File }

// start says that a command has started.
func (d *daemon) start(c *protocol.Command) *pipes {
	p := &pipes{}
	var client []*os.File
	pipe := func() (r, w *os.File) {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			d.t.Error(err)
		}
		return os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	}
	r, w := pipe()
	p.out, p.errs, client = w, w, append(client, r)
	if !c.Merged {
		r, w = pipe()
		p.errs, client = w, append(client, r)
	}
	if c.Input {
		r, w = pipe()
		p.in, client = r, append(client, w)
	}
	d.send(&protocol.Response{Started: true}, client...)
	for _, f := range client {
		f.Close()
	}
	return p
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.out, p.errs, p.in} {
		if f != nil {
			f.Close()
		}
	}
}

func (d *daemon) exit(code int) { d.send(&protocol.Response{Exit: &code}) }

func dial(t *testing.T, answer func(d *daemon, r *protocol.Request)) *Client {
	t.Helper()
	c, err := Dial(listen(t, answer))
	must(t, err)
	return c
}

// Everything that a command has written is passed on, and its input to it, whatever they are: more
// than a pipe holds, nothing, one stream for both outputs.
func TestStreams(t *testing.T) {
	t.Parallel()
	c := dial(t, func(d *daemon, r *protocol.Request) {
		p := d.start(r.Command)
		if p.in != nil {
			_, _ = io.Copy(p.out, p.in)
		}
		_, _ = p.errs.WriteString("errors")
		p.close()
		d.exit(7)
	})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, input := range [][]byte{nil, {}, []byte("x"), big} {
		var out, errs bytes.Buffer
		o := Options{Command: []string{"cat"}, Stdout: &out, Stderr: &errs}
		if input != nil {
			o.Stdin = bytes.NewReader(input)
		}
		code, err := c.Run(t.Context(), o)
		if code != 7 || err != nil || !bytes.Equal(out.Bytes(), input) || errs.String() != "errors" {
			t.Errorf("%d bytes: exit code %d, %v, %d bytes of output, errors %q", len(input), code, err, out.Len(), errs.String())
		}
		out.Reset()
		o.Stderr = &out
		if input != nil {
			o.Stdin = bytes.NewReader(input)
		}
		if code, err = c.Run(t.Context(), o); code != 7 || err != nil || out.String() != string(input)+"errors" {
			t.Errorf("%d bytes, merged: exit code %d, %v, %d bytes of output", len(input), code, err, out.Len())
		}
	}
	if code, err := c.Exec(t.Context(), "x", ExecOptions{Command: []string{"cat"}}); code != 7 || err != nil {
		t.Errorf("without streams: %d %v", code, err)
	}
}

// A command that has left somebody who keeps its pipes has ended all the same, and what it wrote is
// all there. Input that nobody reads, or that never ends, is not waited for.
func TestStreamsKept(t *testing.T) {
	t.Parallel()
	kept := make(chan *pipes, 10)
	c := dial(t, func(d *daemon, r *protocol.Request) {
		p := d.start(r.Command)
		_, _ = p.out.Write(bytes.Repeat([]byte("x"), 60000)) // less than a pipe holds
		d.exit(0)
		kept <- p
	})
	reads, _, err := os.Pipe()
	must(t, err)
	defer reads.Close()
	for range 5 {
		var out slow
		code, err := c.Exec(t.Context(), "x", ExecOptions{Command: []string{"x"}, Stdout: &out, Stdin: reads})
		if code != 0 || err != nil || out.n != 60000 {
			t.Errorf("%d, %v, %d bytes", code, err, out.n)
		}
		p := <-kept
		if _, err := p.out.WriteString("more"); !errors.Is(err, unix.EPIPE) {
			t.Errorf("what was left in the background can write: %v", err)
		}
		p.close()
	}
}

// slow takes what it is given one after the other, and not at once.
type slow struct{ n int }

func (s *slow) Write(b []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	s.n += len(b)
	return len(b), nil
}

// broken takes so much and no more.
type broken struct{ left int }

var errFull = errors.New("it is full")

func (b *broken) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// A stream that can't be written ends the output of the command, and is told with its exit code.
func TestBrokenOutput(t *testing.T) {
	t.Parallel()
	c := dial(t, func(d *daemon, r *protocol.Request) {
		p := d.start(r.Command)
		for {
			if _, err := p.out.WriteString("much"); err != nil {
				break
			}
		}
		p.close()
		d.exit(141)
	})
	code, err := c.Run(t.Context(), Options{Command: []string{"yes"}, Stdout: &broken{1000}})
	if code != 141 || !errors.Is(err, errFull) {
		t.Errorf("%d %v", code, err)
	}
}

// The end of the context is the end of the request, before the command runs and while it does.
func TestCancelled(t *testing.T) {
	t.Parallel()
	gone := make(chan bool, 2)
	c := dial(t, func(d *daemon, r *protocol.Request) {
		if r.Name == "run-starts" {
			p := d.start(r.Command)
			defer p.close()
		}
		_, err := d.conn.Read(make([]byte, 1))
		gone <- err != nil
	})
	for _, name := range []string{"run-waits", "run-starts"} {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
		var out bytes.Buffer
		if _, err := c.Run(ctx, Options{Name: name, Command: []string{"x"}, Stdout: &out}); !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
		if !<-gone {
			t.Error("the daemon was not told")
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Run(over, Options{Command: []string{"x"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Each kind of error is one to test for, and says what the daemon says.
func TestErrors(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]error{
		protocol.KindDenied: ErrDenied, protocol.KindRefused: ErrRefused, protocol.KindBusy: ErrBusy, protocol.KindNotFound: ErrNotFound,
		protocol.KindStart: ErrStart, protocol.KindTimeout: ErrTimeout, protocol.KindOutOfMemory: ErrOutOfMemory, protocol.KindEnded: ErrEnded,
		protocol.KindStopping: ErrDaemonGone, protocol.KindFailed: ErrFailed, "of a later daemon": ErrFailed,
	} {
		for _, starts := range []bool{false, true} {
			c := dial(t, func(d *daemon, r *protocol.Request) {
				if starts {
					p := d.start(r.Command)
					_, _ = p.out.WriteString("before")
					p.close()
				}
				d.send(&protocol.Response{Error: &protocol.Error{Kind: kind, Message: "why " + kind}})
			})
			var out bytes.Buffer
			code, err := c.Run(t.Context(), Options{Command: []string{"x"}, Stdout: &out})
			if code != 0 || !errors.Is(err, want) || err.Error() != "why "+kind || starts != (out.String() == "before") {
				t.Errorf("%s, started %v: %d %v, output %q", kind, starts, code, err, out.String())
			}
		}
	}
	c := dial(t, func(d *daemon, _ *protocol.Request) {
		code := 127
		d.send(&protocol.Response{Exit: &code, Error: &protocol.Error{Kind: protocol.KindCommand, Message: "not there"}})
	})
	if code, err := c.Run(t.Context(), Options{Command: []string{"x"}}); code != 127 || !errors.Is(err, ErrCommand) {
		t.Errorf("%d %v", code, err)
	}
}

// A daemon that is not there, or ends at any moment, is told as such.
func TestDaemonGone(t *testing.T) {
	t.Parallel()
	for _, path := range []string{filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), strings.Repeat("n", 200), "s")} {
		if _, err := Dial(path); !errors.Is(err, ErrDaemonGone) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
	}
	for what, answer := range map[string]func(d *daemon, r *protocol.Request){
		"at once": func(*daemon, *protocol.Request) {},
		"in the middle of a message": func(d *daemon, _ *protocol.Request) {
			_, _ = d.conn.Write([]byte(`{"started":`))
		},
		"while the command runs": func(d *daemon, r *protocol.Request) {
			p := d.start(r.Command)
			_, _ = p.out.WriteString("before")
			p.close()
		},
		"nonsense": func(d *daemon, _ *protocol.Request) { _, _ = d.conn.Write([]byte("HTTP/1.1 200 OK\r\n")) },
	} {
		c := dial(t, answer)
		var out bytes.Buffer
		if code, err := c.Run(t.Context(), Options{Command: []string{"x"}, Stdout: &out}); code != 0 || !errors.Is(err, ErrDaemonGone) || out.Len() != 0 && what != "while the command runs" {
			t.Errorf("%s: %d %v %q", what, code, err, out.String())
		}
	}
	// One that passes fewer pipes than it should.
	c := dial(t, func(d *daemon, r *protocol.Request) {
		r.Command.Input = false
		d.start(r.Command).close()
		d.exit(0)
	})
	if _, err := c.Run(t.Context(), Options{Command: []string{"x"}, Stdin: strings.NewReader("")}); !errors.Is(err, ErrFailed) {
		t.Errorf("%v", err)
	}
}

// What can't be sent as it is, is refused here. Paths are those of this process.
func TestRequests(t *testing.T) {
	t.Parallel()
	asked := make(chan *protocol.Request, 50)
	c := dial(t, func(d *daemon, r *protocol.Request) {
		asked <- r
		if r.Command != nil {
			d.start(r.Command).close()
			d.exit(0)
			return
		}
		d.send(&protocol.Response{Done: true, Sandboxes: []protocol.Status{{Name: "run-a", Phase: "Running", Labels: map[string]string{"a": "b"}}}})
	})
	x := []string{"x"}
	for _, o := range []Options{
		{Command: []string{"echo", "\xff"}},
		{Command: x, Env: []string{"A=\xff"}},
		{Command: x, Dir: "/\xff"},
		{Command: x, Name: "\xff"},
		// Another directory of the host could have the name that would arrive.
		{Command: x, RootDir: "/\xff"},
		{Command: x, Volumes: []string{"/\xff:/a"}},
		{Command: x, Volumes: []string{"a:/\xff"}},
		{Command: x, Image: "local:\xff"},
		{Command: x, Memory: "\xff"},
		{Command: x, CPU: "\xff"},
		{Command: x, Network: "\xff"},
		{Command: x, Egress: []string{"\xff"}},
		{Command: x, Labels: map[string]string{"a": "\xff"}},
		{Command: x, Labels: map[string]string{"\xff": "a"}},
		{Command: []string{"x", strings.Repeat("x", protocol.MaxRequest)}},
	} {
		if _, err := c.Run(t.Context(), o); !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	}
	here, err := os.Getwd()
	must(t, err)
	if _, err := c.Run(t.Context(), Options{
		Command: []string{"x"}, RootDir: "root", Volumes: []string{"./a:/a:ro", "cache:/c", "/b:/b"}, Timeout: time.Minute, Name: "run-a", Network: "front", Egress: []string{"e"},
		Memory: "1Mi", CPU: "2", Labels: map[string]string{"a": "b"}, Env: []string{"A=b"}, Dir: "/d",
	}); err != nil {
		t.Error(err)
	}
	r := <-asked
	if s := r.Sandbox; s.RootDir != here+"/root" || strings.Join(s.Volumes, " ") != here+"/a:/a:ro cache:/c /b:/b" || s.Network != "front" || len(s.Egress) != 1 || s.Memory != "1Mi" || s.CPU != "2" || s.Labels["a"] != "b" {
		t.Errorf("%+v", s)
	}
	if r.Name != "run-a" || r.Timeout != time.Minute || r.Command.Env[0] != "A=b" || r.Command.Dir != "/d" {
		t.Errorf("%+v", r)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "run-a" || list[0].Labels["a"] != "b" {
		t.Errorf("%+v %v", list, err)
	}
	one, err := c.Get(t.Context(), "run-a")
	if err != nil || one.Phase != "Running" {
		t.Errorf("%+v %v", one, err)
	}
	must(t, c.Remove(t.Context(), "run-a"))
	for _, op := range []string{protocol.OpList, protocol.OpList, protocol.OpRemove} {
		if r := <-asked; r.Op != op {
			t.Errorf("%+v", r)
		}
	}
}

// A daemon that has no place answers and closes before it has read anything.
func TestBusy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	must(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, err := protocol.Encode(&protocol.Response{Error: &protocol.Error{Kind: protocol.KindBusy, Message: "later"}})
			if err != nil {
				t.Error(err)
			}
			_, _ = conn.Write(line)
			conn.Close()
		}
	}()
	for range 200 {
		if _, err := Dial(path); !errors.Is(err, ErrBusy) || err.Error() != "later" {
			t.Fatal(err)
		}
	}
	c := &Client{path}
	if _, err := c.Run(t.Context(), Options{Command: []string{"x", strings.Repeat("x", 400<<10)}}); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}
