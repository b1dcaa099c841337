// SPDX-License-Identifier: Apache-2.0

package setup

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/wire"
)

// Exec says how the sentry starts one more process in the sandbox.
func (st *Setup) Exec(p *specs.Process) wire.ExecArgs {
	return wire.ExecArgs{
		Argv: p.Args, Envv: p.Env, WorkingDirectory: p.Cwd,
		KUID: p.User.UID, KGID: p.User.GID, ExtraKGIDs: p.User.AdditionalGids,
		NoNewPrivileges: p.NoNewPrivileges, Capabilities: taskCapabilities(settable(p.Capabilities), st.RawSockets), StdioIsPty: p.Terminal,
	}
}
