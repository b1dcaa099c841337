// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/wire"
)

// ExecArgs is how a command is started in a sandbox by default: as the
// application was, with its environment, directory, user and capabilities.
func ExecArgs(rec *actual.Record, argv []string) (wire.ExecArgs, error) {
	e, err := desired.FromCanonical(rec.Spec, rec.SourceFile)
	if err != nil {
		return wire.ExecArgs{}, err
	}
	st, err := fromManifest(e.Sandbox, nil)
	if err != nil {
		return wire.ExecArgs{}, fmt.Errorf("read defaults of %s: %w", rec.Name, err)
	}
	p := *st.spec.Process
	p.Args = argv
	return ProcessArgs(&p), nil
}

// ProcessArgs starts a process as its OCI description says.
func ProcessArgs(p *specs.Process) wire.ExecArgs {
	return wire.ExecArgs{
		Argv: p.Args, Envv: p.Env, WorkingDirectory: p.Cwd,
		KUID: p.User.UID, KGID: p.User.GID, ExtraKGIDs: p.User.AdditionalGids,
		NoNewPrivileges: p.NoNewPrivileges, Capabilities: taskCapabilities(p.Capabilities), StdioIsPty: p.Terminal,
	}
}

// capabilityBits are the numbers of Linux's capabilities, in order from 0.
var capabilityBits = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
	AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// CapabilityNames are the capabilities this program knows, as OCI writes them.
func CapabilityNames() []string {
	out := make([]string, len(capabilityBits))
	for i, n := range capabilityBits {
		out[i] = "CAP_" + n
	}
	return out
}

// netRaw is left out: the sentry runs without raw sockets.
const netRaw = "NET_RAW"

func taskCapabilities(c *specs.LinuxCapabilities) *wire.TaskCapabilities {
	if c == nil {
		return &wire.TaskCapabilities{}
	}
	return &wire.TaskCapabilities{
		PermittedCaps: capabilityMask(c.Permitted), InheritableCaps: capabilityMask(c.Inheritable),
		EffectiveCaps: capabilityMask(c.Effective), BoundingCaps: capabilityMask(c.Bounding), AmbientCaps: capabilityMask(c.Ambient),
	}
}

func capabilityMask(names []string) uint64 {
	var m uint64
	for _, n := range names {
		n = strings.TrimPrefix(strings.ToUpper(n), "CAP_")
		for bit, name := range capabilityBits {
			if n == name && n != netRaw {
				m |= 1 << bit
			}
		}
	}
	return m
}
