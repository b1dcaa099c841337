// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/client/protocol"
)

const (
	// helloTimeout is how long a daemon may take to say that it is there.
	helloTimeout = 10 * time.Second
	// maxFiles is how many descriptors come with one message.
	maxFiles = 3
	// maxPath is the longest path that the kernel takes for a socket.
	maxPath = 107
)

// connection is one request.
type connection struct {
	conn  *net.UnixConn
	rest  []byte     // read and not yet used
	files []*os.File // received and not yet taken
}

// connect connects with the daemon. Any other program that listens there is told nothing: it would see the
// code, the input and the environment.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	path := c.path
	if len(path) > maxPath {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return nil, c.gone(err)
		}
		defer dir.Close()
		path = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, unix.EACCES):
		return nil, &Error{Kind: ErrDenied, Message: fmt.Sprintf("user %d may not use the socket %s; it is for root and the group that clients.group of the host policy names", os.Geteuid(), c.path)}
	case errors.Is(err, unix.EAGAIN): // its queue is full
		return nil, &Error{Kind: ErrBusy, Message: fmt.Sprintf("the daemon at %s does not answer yet", c.path)}
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, c.gone(err)
	}
	k := &connection{conn: conn.(*net.UnixConn)}
	if uid, err := k.peer(); err != nil || uid != 0 && uid != os.Geteuid() {
		k.close()
		return nil, &Error{Kind: ErrDaemonGone, Message: fmt.Sprintf("the socket %s is not that of a daemon of root: user %d listens there (%v)", c.path, uid, err)}
	}
	return k, nil
}

// gone is the error for a daemon that is not there.
func (c *Client) gone(err error) error {
	return &Error{Kind: ErrDaemonGone, Message: fmt.Sprintf("no daemon answers on %s: %v", c.path, err)}
}

// peer is the user that listens.
func (k *connection) peer() (uid int, err error) {
	raw, err := k.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return -1, errors.Join(cerr, err)
	}
	return int(cred.Uid), nil
}

func (k *connection) close() {
	_ = k.conn.Close()
	for _, f := range k.files {
		f.Close()
	}
	k.files = nil
}

// send sends the request. One that the daemon does not read has an answer all the same.
func (k *connection) send(r *protocol.Request) error {
	r.Version = protocol.Version
	line, err := protocol.Encode(r)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if len(line) > protocol.MaxRequest {
		return &Error{Kind: ErrRefused, Message: fmt.Sprintf("the command and its environment take %d bytes, more than %d; pass the most of it by Stdin", len(line), protocol.MaxRequest)}
	}
	if _, err := k.conn.Write(line); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}

// receive returns the next message.
func (k *connection) receive() (*protocol.Response, error) {
	for {
		line, rest, found := bytes.Cut(k.rest, []byte("\n"))
		if !found {
			if len(k.rest) > protocol.MaxResponse {
				return nil, protocol.ErrTooLong
			}
			if err := k.fill(); err != nil {
				return nil, err
			}
			continue
		}
		k.rest = rest
		r := new(protocol.Response)
		if err := json.Unmarshal(line, r); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		return r, nil
	}
}

// fill reads more, with the descriptors that come with it.
func (k *connection) fill() error {
	buf, oob := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := k.conn.ReadMsgUnix(buf, oob)
	n = max(n, 0) // -1 with an error
	k.rest = append(k.rest, buf[:n]...)
	if oobn > 0 {
		if ferr := k.take(oob[:oobn]); ferr != nil {
			return ferr
		}
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	if n > 0 {
		return nil // what is wrong is told by the next read
	}
	return err
}

// take takes descriptors out of a message.
func (k *connection) take(oob []byte) error {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("receive pipes: %w", err)
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return fmt.Errorf("receive pipes: %w", err)
		}
		for _, fd := range fds {
			// So that Go's poller waits for it, and it can be closed while somebody reads. The
			// daemon has made it for this process.
			err = errors.Join(err, syscall.SetNonblock(fd, true))
			k.files = append(k.files, os.NewFile(uintptr(fd), "pipe of a sandbox"))
		}
		if err != nil {
			return fmt.Errorf("receive pipes: %w", err)
		}
	}
	return nil
}

// hello asks whether the daemon is there, and whether this process may ask it.
func (c *Client) hello() error {
	// Nobody waits for longer: it needs no context of the caller's.
	ctx, cancel := context.WithTimeoutCause(context.Background(), helloTimeout, c.gone(errors.New("no answer in time")))
	defer cancel()
	_, err := c.ask(ctx, &protocol.Request{Op: protocol.OpHello})
	return err
}

// ask sends a request that has one answer, and waits until it is carried out.
func (c *Client) ask(ctx context.Context, r *protocol.Request) (*protocol.Response, error) {
	if err := checkText([]string{r.Name}); err != nil {
		return nil, err
	}
	k, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer k.close()
	defer context.AfterFunc(ctx, func() { _ = k.conn.Close() })()
	answer, err := c.exchange(k, r)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

func (c *Client) exchange(k *connection, r *protocol.Request) (*protocol.Response, error) {
	if err := k.send(r); err != nil {
		return nil, err
	}
	return c.next(k)
}

// next is the next message, or the error that it holds.
func (c *Client) next(k *connection) (*protocol.Response, error) {
	r, err := k.receive()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return nil, c.gone(errors.New("it has ended, or was restarted"))
	case err != nil:
		return nil, c.gone(err)
	case r.Error != nil:
		return r, fromDaemon(r.Error)
	}
	return r, nil
}
