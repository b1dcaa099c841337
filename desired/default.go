// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"time"

	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/scalar"
)

// Defaults of a manifest.
const (
	DefaultBackoffInitial = time.Second
	DefaultBackoffMax     = 5 * time.Minute
	DefaultResetAfter     = 10 * time.Minute
	DefaultGracePeriod    = 10 * time.Second
	DefaultStopSignal     = "SIGTERM"
	DefaultReloadSignal   = "SIGHUP"
	// DefaultMinReadySeconds is longer than most programs that can't work take to say so.
	DefaultMinReadySeconds = 2
)

// DefaultCapabilities is what root of a sandbox may do inside its sandbox
// unless its manifest says otherwise: the set container engines agree on.
var DefaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Default fills in what the author left out. The process fields of a bundle
// are the bundle's; those of an image are known when it has been fetched.
func Default(s *Sandbox) {
	sp := &s.Spec
	sp.Overlay = cmp.Or(sp.Overlay, OverlayMemory)
	sp.Platform = cmp.Or(sp.Platform, PlatformSystrap)
	sp.FileAccess = cmp.Or(sp.FileAccess, FileAccessProxy)
	sp.Network.Fill()
	sp.RestartPolicy = cmp.Or(sp.RestartPolicy, RestartAlways)
	if img := sp.Root.Image; img != nil {
		img.PullPolicy = cmp.Or(img.PullPolicy, imageref.PullIfNotPresent)
	} else {
		sp.StopSignal = cmp.Or(sp.StopSignal, DefaultStopSignal)
	}
	sp.TerminationGracePeriod = cmp.Or(sp.TerminationGracePeriod, new(scalar.Duration(DefaultGracePeriod)))
	if sp.Init != nil && *sp.Init {
		sp.Init = nil // as it was before there was the field: the hash is the same
	}
	sp.Snapshot.Fill()
	sp.MinReadySeconds = cmp.Or(sp.MinReadySeconds, new(DefaultMinReadySeconds))
	sp.Backoff.Initial = cmp.Or(sp.Backoff.Initial, new(scalar.Duration(DefaultBackoffInitial)))
	sp.Backoff.Max = cmp.Or(sp.Backoff.Max, new(max(scalar.Duration(DefaultBackoffMax), *sp.Backoff.Initial)))
	sp.Backoff.ResetAfter = cmp.Or(sp.Backoff.ResetAfter, new(scalar.Duration(DefaultResetAfter)))
	for i := range sp.Env {
		if from := sp.Env[i].ValueFrom; sp.Env[i].ReadAtStart() {
			from.OnChange = cmp.Or(from.OnChange, OnChangeRestart)
		}
	}
	for i := range sp.EnvFrom {
		f := &sp.EnvFrom[i]
		f.OnChange = cmp.Or(f.OnChange, OnChangeRestart)
		if f.File != "" {
			f.Format = cmp.Or(f.Format, FormatDotenv)
		}
	}
	for i := range sp.Volumes {
		if named := sp.Volumes[i].Volume; named != nil {
			sp.Volumes[i].Name = cmp.Or(sp.Volumes[i].Name, named.Name)
		}
		if dir := sp.Volumes[i].EmptyDir; dir != nil {
			dir.Medium = cmp.Or(dir.Medium, MediumDisk)
		}
		if o := sp.Volumes[i].Ownership; o != nil {
			o.When = cmp.Or(o.When, OwnershipFresh)
		}
		if set := sp.Volumes[i].InMemory(); set != nil {
			set.OnChange = cmp.Or(set.OnChange, OnChangeRestart)
			if set.OnChange == OnChangeSignal {
				set.Signal = cmp.Or(set.Signal, DefaultReloadSignal)
			}
		}
	}
	if sp.Root.Bundle == "" {
		if sp.Root.Image == nil {
			sp.WorkingDir = cmp.Or(sp.WorkingDir, "/")
		}
		sp.Hostname = cmp.Or(sp.Hostname, s.Metadata.Name)
	}
}
