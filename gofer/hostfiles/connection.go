// SPDX-License-Identifier: Apache-2.0
// Copyright 2021 The gVisor Authors.
// Changed: see doc.go.

package hostfiles

import (
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/atomicbitops"
	rwfd "gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/lisafs"
)

const openFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC

// Config is how the trees of a connection are served.
type Config struct {
	// DonateMountPointFD gives the client a descriptor of the mount point.
	DonateMountPointFD bool
	// NoDevices lets device nodes be of no device.
	NoDevices bool
}

var procSelfFD *rwfd.FD

// OpenProcSelfFD opens the /proc/self/fd directory, which will be used to
// reopen file descriptors.
func OpenProcSelfFD(path string) error {
	d, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open /proc/self/fd: %w", err)
	}
	procSelfFD = rwfd.New(d)
	return nil
}

// ConnectionOpts returns the lisafs.ConnectionOpts of a connection.
func ConnectionOpts(readonly bool) lisafs.ConnectionOpts {
	return lisafs.ConnectionOpts{
		Readonly:          readonly,
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

// connectionImpl implements lisafs.ConnectionImpl.
type connectionImpl struct {
	config Config
}

// Mount implements lisafs.ConnectionImpl.Mount.
func (i *connectionImpl) Mount(c *lisafs.Connection, mountNode *lisafs.Node) (*lisafs.ControlFD, lisafs.Statx, int, error) {
	rootHostFD, stat, err := i.open(unix.AT_FDCWD, mountNode.FilePath())
	if err != nil {
		return nil, lisafs.Statx{}, -1, err
	}
	clientHostFD := -1
	if i.config.DonateMountPointFD {
		clientHostFD, err = unix.Dup(rootHostFD)
		if err != nil {
			_ = unix.Close(rootHostFD)
			return nil, lisafs.Statx{}, -1, err
		}
	}
	rootFD := &controlFD{
		hostFD:         rootHostFD,
		writableHostFD: atomicbitops.FromInt32(-1),
		isMountPoint:   true,
	}
	mountNode.IncRef() // Ref is transferred to ControlFD.
	rootFD.Init(c, mountNode, linux.FileMode(stat.Mode), rootFD)
	return rootFD.FD(), stat, clientHostFD, nil
}

// MaxMessageSize implements lisafs.ConnectionImpl.MaxMessageSize.
func (i *connectionImpl) MaxMessageSize() uint32 {
	return lisafs.MaxMessageSize()
}

// SupportedMessages implements lisafs.ConnectionImpl.SupportedMessages.
func (i *connectionImpl) SupportedMessages() []lisafs.MID {
	// Note that Flush is not supported.
	return []lisafs.MID{
		lisafs.Mount,
		lisafs.Channel,
		lisafs.FStat,
		lisafs.SetStat,
		lisafs.Walk,
		lisafs.WalkStat,
		lisafs.OpenAt,
		lisafs.OpenCreateAt,
		lisafs.Close,
		lisafs.FSync,
		lisafs.PWrite,
		lisafs.PRead,
		lisafs.MkdirAt,
		lisafs.MknodAt,
		lisafs.SymlinkAt,
		lisafs.LinkAt,
		lisafs.FStatFS,
		lisafs.FAllocate,
		lisafs.ReadLinkAt,
		lisafs.Connect, // refused: with EPERM a sentry makes a socket of its own
		lisafs.UnlinkAt,
		lisafs.RenameAt,
		lisafs.Getdents64,
		lisafs.FGetXattr,
		lisafs.FSetXattr,
		lisafs.FListXattr,
		lisafs.FRemoveXattr,
		lisafs.BindAt,
		lisafs.ConnectWithCreds,
		lisafs.RenameAt2,
	}
}
