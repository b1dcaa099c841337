// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"time"
)

// Defaults of a manifest.
const (
	DefaultBackoffInitial = time.Second
	DefaultBackoffMax     = 5 * time.Minute
	DefaultResetAfter     = 10 * time.Minute
	DefaultGracePeriod    = 10 * time.Second
	DefaultStopSignal     = "SIGTERM"
	// DefaultMinReadySeconds is longer than most programs that can't work take to
	// say so.
	DefaultMinReadySeconds = 2
)

// DefaultCapabilities is what root of a sandbox may do inside its sandbox
// unless its manifest says otherwise: the set container engines agree on.
var DefaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Default fills in what the author left out. The process fields of a bundle
// are the bundle's.
func Default(s *Sandbox) {
	sp := &s.Spec
	sp.Overlay = cmp.Or(sp.Overlay, OverlayMemory)
	sp.Platform = cmp.Or(sp.Platform, PlatformSystrap)
	sp.FileAccess = cmp.Or(sp.FileAccess, FileAccessProxy)
	sp.Network.Mode = cmp.Or(sp.Network.Mode, NetworkNone)
	sp.RestartPolicy = cmp.Or(sp.RestartPolicy, RestartAlways)
	sp.StopSignal = cmp.Or(sp.StopSignal, DefaultStopSignal)
	sp.TerminationGracePeriod = cmp.Or(sp.TerminationGracePeriod, new(Duration(DefaultGracePeriod)))
	if sp.Init != nil && *sp.Init {
		sp.Init = nil // as it was before there was the field: the hash is the same
	}
	sp.MinReadySeconds = cmp.Or(sp.MinReadySeconds, new(DefaultMinReadySeconds))
	sp.Backoff.Initial = cmp.Or(sp.Backoff.Initial, new(Duration(DefaultBackoffInitial)))
	sp.Backoff.Max = cmp.Or(sp.Backoff.Max, new(max(Duration(DefaultBackoffMax), *sp.Backoff.Initial)))
	sp.Backoff.ResetAfter = cmp.Or(sp.Backoff.ResetAfter, new(Duration(DefaultResetAfter)))
	if sp.Root.Bundle == "" {
		sp.WorkingDir = cmp.Or(sp.WorkingDir, "/")
		sp.Hostname = cmp.Or(sp.Hostname, s.Metadata.Name)
	}
}
