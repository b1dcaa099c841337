// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// ExecArgs is how a command is started in a sandbox by default: as the
// application was, with its environment, directory, user and capabilities.
func ExecArgs(store *actual.Store, rec *actual.Record, argv []string) (wire.ExecArgs, error) {
	st, err := setupOf(store, rec)
	if err != nil {
		return wire.ExecArgs{}, err
	}
	p := *st.Spec.Process
	p.Args = argv
	return st.Exec(&p), nil
}

// ContainerExecArgs starts one more process in a container, as its OCI description
// says.
func ContainerExecArgs(store *actual.Store, rec *actual.Record, p *specs.Process) (wire.ExecArgs, error) {
	if !rec.SetupFile {
		// An earlier version created it. The copy of its config.json tells, also when
		// its bundle is gone.
		cfg, err := containerSpec(store, rec.Name)
		if err != nil {
			return wire.ExecArgs{}, err
		}
		st := setup.Setup{RawSockets: setup.RawSockets(cfg)}
		return st.Exec(p), nil
	}
	st, err := setupOf(store, rec)
	if err != nil {
		return wire.ExecArgs{}, err
	}
	return st.Exec(p), nil
}
