// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/setup"
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
	p := *st.Spec.Process
	p.Args = argv
	return st.Exec(&p), nil
}

// ContainerExecArgs starts one more process in the container of cfg, as its OCI
// description says.
func ContainerExecArgs(cfg *specs.Spec, p *specs.Process) wire.ExecArgs {
	st := setup.Setup{RawSockets: setup.RawSockets(cfg)}
	return st.Exec(p)
}
