// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/wire"
)

// sinkOf answers one request of a client and has f speak on the socket that came with it.
func sinkOf(t *testing.T, c *net.UnixConn, reply string, f func(socket int)) {
	t.Helper()
	go func() {
		b, oob := make([]byte, 4096), make([]byte, 64)
		n, m, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil || !json.Valid(b[:n]) {
			return
		}
		var fds []int
		if msgs, err := unix.ParseSocketControlMessage(oob[:m]); err == nil && len(msgs) == 1 {
			fds, _ = unix.ParseUnixRights(&msgs[0])
		}
		_, _ = c.Write([]byte(reply))
		if len(fds) == 1 {
			f(fds[0])
			_ = unix.Close(fds[0])
		}
	}()
}

func utter(text string) func(int) {
	return func(fd int) { _, _ = unix.Write(fd, []byte(text)) }
}

// What follows the first line is the connection's, byte by byte.
func TestForward(t *testing.T) {
	t.Parallel()
	c, peer := controlPair(t)
	sinkOf(t, peer, `{"success":true}`, utter("\nhello\n"))
	conn, err := c.Forward(t.Context(), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestForwardErrors(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		reply, line string
		is          error
	}{
		"on the network of the host":                     {`{"success":true}`, wire.ForwardHostNetwork + "\n", ErrHostNetwork},
		"nothing in the sandbox listens on 127.0.0.1:80": {`{"success":true}`, wire.ForwardRefused + "\n", nil},
		"as many forwarded connections":                  {`{"success":true}`, "the sandbox has as many forwarded connections\n", nil},
		"restart the sandbox":                            {`{"success":false,"err":"sink \"x\" not found"}`, "", nil},
		"not been started":                               {`{"success":false,"err":"the application has not been started"}`, "", nil},
		"closed the connection":                          {`{"success":true}`, "half", ErrClosed},
	} {
		control, peer := controlPair(t)
		sinkOf(t, peer, c.reply, utter(c.line))
		conn, err := control.Forward(t.Context(), 80)
		if err == nil || !strings.Contains(err.Error(), want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", want, err)
		}
		if conn != nil {
			t.Errorf("%s: a connection beside an error", want)
		}
	}
}

// A sentry that was taken over neither holds a client nor speaks to its terminal.
func TestForwardHostile(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(int){
		"endless": func(fd int) {
			for b := bytes.Repeat([]byte("x"), 4096); ; {
				if _, err := unix.Write(fd, b); err != nil {
					return
				}
			}
		},
		"terminal": utter("\x1b]0;evil\x07\x1b[2J\u202e\n"),
		"silent":   func(fd int) { _, _ = unix.Read(fd, make([]byte, 1)) },
		"zeros":    utter(strings.Repeat("\x00", 100) + "\n"),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		control, peer := controlPair(t)
		sinkOf(t, peer, `{"success":true}`, f)
		begin := time.Now()
		_, err := control.Forward(ctx, 80)
		cancel()
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\x07\x00\u202e") || len(err.Error()) > 2500 {
			t.Errorf("%s: %q", name, err)
		}
		if d := time.Since(begin); d > 30*time.Second {
			t.Errorf("%s: took %s", name, d)
		}
		control.Close()
		peer.Close()
	}
}
