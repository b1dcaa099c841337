// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// Config is how the trees of a connection are served.
type Config struct {
	// DonateMountPointFD gives the client a descriptor of the mount point.
	DonateMountPointFD bool
	// NoDevices lets device nodes be of no device.
	NoDevices bool
}

// ConnectionOpts returns the lisafs.ConnectionOpts of a connection.
func ConnectionOpts(readonly bool) lisafs.ConnectionOpts {
	return lisafs.ConnectionOpts{
		Readonly: readonly,
		// Every file is held by a descriptor. It stays what it is when its name
		// is removed or given to another file.
		WalkStatSupported: true,
		SetAttrOnDeleted:  true,
		AllocateOnDeleted: true,
		OpenOnDeleted:     true,
	}
}

// NewConnectionImpl returns the server's side of a connection.
func NewConnectionImpl(config Config) lisafs.ConnectionImpl {
	return &connectionImpl{config: config}
}

type connectionImpl struct {
	config Config
}

func (c *connectionImpl) Mount(conn *lisafs.Connection, node *lisafs.Node) (*lisafs.ControlFD, lisafs.Statx, int, error) {
	// The only path that is ever opened. The gofer made it.
	fd, stat, err := c.locate(unix.AT_FDCWD, node.FilePath())
	if err != nil {
		return nil, stat, -1, err
	}
	donated := -1
	if c.config.DonateMountPointFD && canOpen(stat.Mode) {
		if donated, err = reopen(fd, unix.O_RDONLY); err != nil {
			unix.Close(fd)
			return nil, stat, -1, err
		}
	}
	node.IncRef() // the descriptor's
	return &newControl(conn, node, fd, stat).ControlFD, stat, donated, nil
}

// SupportedMessages implements lisafs.ConnectionImpl. Flush is left out: what is
// written is with the host's kernel at once, so that closing a file need not wait
// for an answer.
func (c *connectionImpl) SupportedMessages() []lisafs.MID {
	return []lisafs.MID{
		lisafs.Mount, lisafs.Channel, lisafs.Close,
		lisafs.FStat, lisafs.SetStat, lisafs.FStatFS, lisafs.Walk, lisafs.WalkStat, lisafs.ReadLinkAt,
		lisafs.OpenAt, lisafs.OpenCreateAt, lisafs.PRead, lisafs.PWrite, lisafs.FSync, lisafs.FAllocate, lisafs.Getdents64,
		lisafs.MkdirAt, lisafs.MknodAt, lisafs.SymlinkAt, lisafs.LinkAt, lisafs.UnlinkAt, lisafs.RenameAt, lisafs.RenameAt2,
		lisafs.FGetXattr, lisafs.FSetXattr, lisafs.FListXattr, lisafs.FRemoveXattr,
		// Refused, with an error that makes the sentry keep a socket of its own.
		lisafs.BindAt, lisafs.Connect,
	}
}

func (c *connectionImpl) MaxMessageSize() uint32 { return lisafs.MaxMessageSize() }
