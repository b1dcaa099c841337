// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// silence is how long the sandbox may say nothing to a client that has said all. A client
// that has closed its connection looks the same, and a guest that never closes would keep
// such connections for ever.
const silence = 5 * time.Minute

// stream is a connection whose directions end one by one: TCP, or a socket of the sentry.
type stream interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// relay copies in both directions until both have ended, and closes both connections.
func relay(client, guest stream, silence time.Duration) {
	var said atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(guest, client)
		if err != nil {
			// The guest takes nothing more: what it says is still passed on.
			_ = client.CloseRead() // the client may be gone
		}
		_ = guest.CloseWrite() // the sandbox may have ended
		said.Store(true)
		_ = guest.SetReadDeadline(time.Now().Add(silence)) // the sandbox may have ended
	})
	wg.Go(func() {
		err := copySpoken(client, guest, &said, silence)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			// Nobody listens any more, or the connection was reset.
			_ = guest.CloseRead()
		}
		_ = client.CloseWrite() // the client may be gone
		if err != nil {
			_ = client.SetReadDeadline(time.Now()) // ends the other direction
		}
	})
	wg.Wait()
	_, _ = client.Close(), guest.Close()
}

// copySpoken copies what the guest says. Once the client has said all, each wait for the
// guest has an end.
func copySpoken(client io.Writer, guest net.Conn, said *atomic.Bool, silence time.Duration) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := guest.Read(buf)
		if n > 0 {
			if _, err := client.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if said.Load() {
			if err := guest.SetReadDeadline(time.Now().Add(silence)); err != nil {
				return err
			}
		}
	}
}
