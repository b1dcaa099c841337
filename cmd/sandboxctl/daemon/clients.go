// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"path/filepath"

	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/cmd/sandboxctl/clients"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

// noSocket as the path of the socket of clients is that there is none.
const noSocket = "none"

// socketOf is the path of the socket of clients, "" if there is none. A state directory of
// somebody's own has one of its own, which others can't reach.
func (f *flags) socketOf(h *world.Host) string {
	switch {
	case f.once || f.clientSocket == noSocket:
		return ""
	case f.clientSocket != "":
		return f.clientSocket
	case h.State == entry.DefaultState:
		return protocol.DefaultSocket
	}
	return filepath.Join(h.State, filepath.Base(protocol.DefaultSocket))
}

// openClients makes what answers clients, if there is to be a socket.
func (d *daemon) openClients(h *world.Host, f *flags) {
	d.info.ClientSocket = f.socketOf(h)
	if d.info.ClientSocket == "" {
		return
	}
	d.clients = clients.New(clients.Options{
		Path: d.info.ClientSocket, Host: h, Store: d.store, Self: d.info.Process, Policy: d.policy.Load, Log: d.log,
	})
}
