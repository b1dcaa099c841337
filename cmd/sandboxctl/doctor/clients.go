// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"

	"sandboxctl.dev/client"
	"sandboxctl.dev/cmd/sandboxctl/clients"
)

// checkClients asks the daemon on the socket of clients, as a program would.
func (d doctor) checkClients() []finding {
	const check = "socket of clients"
	daemon, alive := d.ReadDaemon()
	switch {
	case !alive:
		return nil // told elsewhere
	case daemon.ClientSocket == "":
		return []finding{{check, levelOK, "none: the daemon was started with --client-socket none, or by an earlier release"}}
	case os.Geteuid() != 0:
		return nil // told elsewhere
	}
	policy, err := d.HostPolicy()
	if err != nil {
		return nil // told elsewhere
	}
	gid, err := clients.GroupOf(&policy.Clients)
	if err != nil {
		return []finding{{check, levelWarning, fmt.Sprintf("only root can use %s: %v", daemon.ClientSocket, err)}}
	}
	if _, err := client.Dial(daemon.ClientSocket); err != nil {
		return []finding{{check, levelError, fmt.Sprintf("programs can't ask for sandboxes: %v; the log of the daemon says why", err)}}
	}
	if gid < 0 {
		return []finding{{check, levelOK, daemon.ClientSocket + ", for root; `clients.group` of the host policy would name a group"}}
	}
	return []finding{{check, levelOK, fmt.Sprintf("%s, for root and the group %s (%d)", daemon.ClientSocket, policy.Clients.Group, gid)}}
}
