// SPDX-License-Identifier: Apache-2.0

package desired

import "time"

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
	orString(&sp.Overlay, OverlayMemory)
	orString(&sp.Platform, PlatformSystrap)
	orString(&sp.FileAccess, FileAccessProxy)
	orString(&sp.Network.Mode, NetworkNone)
	orString(&sp.RestartPolicy, RestartAlways)
	if sp.StopSignal == "" {
		sp.StopSignal = DefaultStopSignal
	}
	orDuration(&sp.TerminationGracePeriod, DefaultGracePeriod)
	if sp.Init != nil && *sp.Init {
		sp.Init = nil // as it was before there was the field: the hash is the same
	}
	if sp.MinReadySeconds == nil {
		n := DefaultMinReadySeconds
		sp.MinReadySeconds = &n
	}
	orDuration(&sp.Backoff.Initial, DefaultBackoffInitial)
	orDuration(&sp.Backoff.Max, max(DefaultBackoffMax, time.Duration(*sp.Backoff.Initial)))
	orDuration(&sp.Backoff.ResetAfter, DefaultResetAfter)
	if sp.Root.Bundle == "" {
		orString(&sp.WorkingDir, "/")
		orString(&sp.Hostname, s.Metadata.Name)
	}
}

func orString(p *string, def string) {
	if *p == "" {
		*p = def
	}
}

func orDuration(p **Duration, def time.Duration) {
	if *p == nil {
		d := Duration(def)
		*p = &d
	}
}
