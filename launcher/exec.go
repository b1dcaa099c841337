// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"

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
	return processArgs(&p, false), nil
}

// ContainerExecArgs starts one more process in the container of cfg, as its OCI
// description says.
func ContainerExecArgs(cfg *specs.Spec, p *specs.Process) wire.ExecArgs {
	return processArgs(p, rawSockets(cfg))
}

func processArgs(p *specs.Process, raw bool) wire.ExecArgs {
	return wire.ExecArgs{
		Argv: p.Args, Envv: p.Env, WorkingDirectory: p.Cwd,
		KUID: p.User.UID, KGID: p.User.GID, ExtraKGIDs: p.User.AdditionalGids,
		NoNewPrivileges: p.NoNewPrivileges, Capabilities: taskCapabilities(settable(p.Capabilities), raw), StdioIsPty: p.Terminal,
	}
}
