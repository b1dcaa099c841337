// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/imageref"
)

// peer is the process that has connected, as the kernel says: with the user and the groups that it
// had then.
type peer struct {
	pid    int
	uid    uint32
	groups []uint32
	// id identifies the process, nil if the kernel can't tell: then only the end of the
	// connection is the end of the client.
	id *process.Identity
	// pull is when the image of its sandbox may be fetched, "" for as a manifest says.
	pull imageref.PullPolicy
}

func (p *peer) root() bool { return p.uid == 0 }

// peerOf asks the kernel who has connected.
func peerOf(conn *net.UnixConn) (*peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &peer{}
	cerr := raw.Control(func(fd uintptr) { err = p.ask(int(fd)) })
	return p, errors.Join(cerr, err)
}

func (p *peer) ask(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("get peer: %w", err)
	}
	p.pid, p.uid = int(cred.Pid), cred.Uid
	if p.groups, err = peerGroups(fd); err != nil {
		return fmt.Errorf("get groups of the peer: %w", err)
	}
	p.groups = append(p.groups, cred.Gid)
	// Linux 6.5 and later. A pidfd that was opened by number could be that of another process.
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return nil //nolint:nilerr // an older kernel
	}
	defer unix.Close(pidfd)
	if id, err := process.Identify(pidfd, p.pid); err == nil {
		p.id = &id
	}
	return nil
}

// maxGroups is how many groups a process may have on Linux.
const maxGroups = 65536

// peerGroups are the supplementary groups of a peer when it connected.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && size > uint32(4*len(groups)) && size <= 4*maxGroups:
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// untilGone calls gone when the process of a peer has ended, unless ctx ends before.
func (p *peer) untilGone(ctx context.Context, gone func()) {
	if p.id == nil {
		return
	}
	h, err := process.Open(*p.id)
	if errors.Is(err, process.ErrGone) {
		gone()
	}
	if err != nil {
		return
	}
	defer h.Close()
	if h.Wait(ctx) == nil {
		gone()
	}
}

// GroupOf is the group that a policy names for clients: -1 if it names none.
func GroupOf(c *hostpolicy.ClientsPolicy) (gid int, err error) {
	if c.Group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(c.Group, 10, 32); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(c.Group)
	if err != nil {
		return -1, fmt.Errorf("clients.group of the host policy: there is no group %q in /etc/group; give the number of one that is elsewhere", c.Group)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		return -1, fmt.Errorf("clients.group of the host policy: group %q has the id %q", c.Group, g.Gid)
	}
	return int(n), nil
}

// admit says whether a peer may use the socket under a policy.
func (p *peer) admit(policy *hostpolicy.Policy) error {
	if p.root() {
		return nil
	}
	gid, err := GroupOf(&policy.Clients)
	switch {
	case err != nil:
		return protocol.Failf(protocol.KindDenied, "%v", err)
	case gid < 0:
		return protocol.Failf(protocol.KindDenied, "the socket is for root, and you are user %d; clients.group of the host policy would name a group", p.uid)
	case !slices.Contains(p.groups, uint32(gid)):
		return protocol.Failf(protocol.KindDenied, "the socket is for root and the group %s, and user %d is not in it; a process that was started before it was added must be restarted", policy.Clients.Group, p.uid)
	}
	return nil
}
