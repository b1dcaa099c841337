// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/wire"
)

// controlPair returns a control connection and the sentry's end of it.
func controlPair(tb testing.TB) (*Control, *net.UnixConn) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		if err != nil {
			tb.Fatal(err)
		}
		f.Close()
		conns[i] = c.(*net.UnixConn)
	}
	return &Control{conn: conns[0], sandbox: "web"}, conns[1]
}

// OpenFiles is how many descriptors this process has.
func OpenFiles(tb testing.TB) int {
	tb.Helper()
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		tb.Fatal(err)
	}
	return len(names)
}

// calls are what is asked of a sentry.
var calls = []func(context.Context, *Control) error{
	func(ctx context.Context, c *Control) error { _, err := c.App().Stats(ctx); return err },
	func(ctx context.Context, c *Control) error { _, err := c.App().Processes(ctx); return err },
	func(ctx context.Context, c *Control) error { _, err := c.App().Wait(ctx); return err },
	func(ctx context.Context, c *Control) error {
		_, err := c.App().Execute(ctx, wire.ExecArgs{Argv: []string{"a"}})
		return err
	},
	func(ctx context.Context, c *Control) error { return c.App().StartRoot(ctx) },
	func(ctx context.Context, c *Control) error { return c.App().Signal(ctx, unix.SIGTERM, true) },
	func(ctx context.Context, c *Control) error { return c.Pause(ctx) },
}

// sendHostile answers with a text in pieces, with descriptors beside the first,
// and closes.
func sendHostile(c *net.UnixConn, answer []byte, piece int, fds []int) {
	defer c.Close()
	var request [4096]byte
	if _, err := c.Read(request[:]); err != nil {
		return
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(answer) > 0 {
		n := min(len(answer), max(piece, 1))
		n, _, err := c.WriteMsgUnix(answer[:n], oob, nil) // it may take less
		if err != nil {
			return
		}
		answer, oob = answer[n:], nil
	}
}

// An answer costs its reader little more than it cost its sender, whatever is
// in it.
func TestControlAllocations(t *testing.T) {
	const most = maxProcesses
	fill := func(head, more, tail string) string {
		return head + strings.Repeat(more, (most-len(head)-len(tail)-100)/len(more)) + tail
	}
	for name, answer := range map[string]string{
		"processes":  fill(`{"success":true,"result":[{}`, ",{}", "]}"),
		"threads":    fill(`{"success":true,"result":[{"threads":[1`, ",1", "]}]}"),
		"nothings":   fill(`{"success":true,"result":[null`, ",null", "]}"),
		"interfaces": fill(`{"success":true,"result":{"event":{"data":{"network_interfaces":[{}`, ",{}", "]}}}}"),
		"processors": fill(`{"success":true,"result":{"event":{"data":{"cpu":{"usage":{"percpu":[1`, ",1", "]}}}}}}"),
		"usage":      manyEntries(`{"success":true,"result":{"containerUsage":{`, "}}}", most),
		"raw memory": manyEntries(`{"success":true,"result":{"event":{"data":{"memory":{"raw":{`, "}}}}}}", most),
		"error":      fill(`{"success":false,"err":"`, "x", `"}`),
		"status":     fill(`{"success":true,"result":[`, "[", ""),
	} {
		for i, call := range calls {
			c, sentry := controlPair(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				sendHostile(sentry, []byte(answer), 1<<16, nil)
			}()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_ = call(t.Context(), c)
			runtime.ReadMemStats(&after)
			c.Close()
			<-done
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
				t.Errorf("%s, call %d: %d MiB for an answer of %d MiB", name, i, n>>20, len(answer)>>20)
			}
		}
	}
}

func manyEntries(head, tail string, size int) string {
	var b strings.Builder
	b.WriteString(head + `"a":1`)
	for i := 0; b.Len() < size-len(tail)-200; i++ {
		b.WriteString(`,"`)
		for n := i; n > 0; n /= 26 {
			b.WriteByte(byte('a' + n%26))
		}
		b.WriteString(`":1`)
	}
	return b.String() + tail
}

// Descriptors that a sentry sends with its answer are not taken.
func TestControlDescriptors(t *testing.T) {
	before := OpenFiles(t)
	for range 50 {
		c, sentry := controlPair(t)
		go sendHostile(sentry, []byte(`{"success":true,"result":[]}`), 1, []int{0, 1, 2, 0, 1, 2})
		if _, err := c.App().Processes(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	deadline := time.Now().Add(2 * time.Minute)
	for OpenFiles(t) > before && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := OpenFiles(t); n > before {
		t.Errorf("%d descriptors, before there were %d", n, before)
	}
}

// Whatever a sentry answers, in whatever pieces and with whatever descriptors:
// its caller has an answer or an error that is fit for a terminal, in time, and
// nothing is left of it.
func FuzzControlReply(f *testing.F) {
	for _, s := range []string{
		`{"success":true,"result":{"event":{"data":{"memory":{"usage":{"usage":5}},"network_interfaces":[null,{"Name":"lo"}]}},"containerUsage":{"a":1}}}`,
		`{"success":true,"result":[{"uid":1,"pid":2,"threads":[1],"tty":"\u001b[2J","cmd":"\u009b2J"},null]}`,
		`{"success":true,"result":7}`, `{"success":true,"result":-1}`, `{"success":true,"result":4294967296}`, `{"success":true,"result":1e400}`,
		`{"success":true}`, `{"success":true,"result":null}`, `{"success":1}`, `{"success":true,"success":false}`, `null`, `[]`, `""`, `{}`, ``, " \n\t", "\x00",
		`{"success":false,"err":"\u001b]0;title\u0007 \ud800 \u202e"}`, "{\"success\":false,\"err\":\"\x1b[2J\xff\"}", `{"success":false,"err":{"a":1}}`,
		`{"success":true,"result":[]}{"success":true,"result":[]}`, strings.Repeat("[", 20000), `{"SUCCESS":true,"Result":[]}`,
	} {
		for i := range calls {
			f.Add(byte(i), uint16(1+1000*(i%2)), i%3 == 0, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, piece uint16, descriptors bool, answer []byte) {
		answer = answer[:min(len(answer), 1<<20)]
		files, routines := OpenFiles(t), runtime.NumGoroutine()
		c, sentry := controlPair(t)
		var fds []int
		if descriptors {
			fds = []int{0, 1, 2}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			sendHostile(sentry, answer, int(max(piece, uint16(len(answer)>>12))), fds)
		}()
		// Much longer than it may take: what is closed needs no deadline.
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := calls[int(which)%len(calls)](ctx, c)
		runtime.ReadMemStats(&after)
		if ctx.Err() != nil {
			t.Fatal("it took a minute")
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20+16*uint64(len(answer)) {
			t.Fatalf("%d bytes for an answer of %d", n, len(answer))
		}
		if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Fatalf("%q is not for a terminal", err)
		}
		c.Close()
		<-done
		// What ends by itself may need a moment to do so.
		for deadline := time.Now().Add(2 * time.Minute); OpenFiles(t) > files || runtime.NumGoroutine() > routines; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d descriptors and %d goroutines, before there were %d and %d", OpenFiles(t), runtime.NumGoroutine(), files, routines)
			}
		}
	})
}

// What a process of a sandbox says last is quoted, whatever it is.
func FuzzLastWords(f *testing.F) {
	f.Add("")
	f.Add("panic: a\nb")
	f.Add("2026-01-02T03:04:05.000000006Z stdout F \x1b[2J\n")
	f.Add("I0102 x\nE \u009b2J \u202e")
	f.Add(strings.Repeat("x", 5000) + "\n\n")
	f.Fuzz(func(t *testing.T, tail string) {
		s := LastLogLine(tail)
		if len(s) > 1000 || strings.ContainsFunc(s, unicode.IsControl) {
			t.Fatalf("%q of %q", s, tail)
		}
	})
}
