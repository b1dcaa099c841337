// SPDX-License-Identifier: Apache-2.0

package built

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// Exec is how a command is started in a sandbox by default: as the
// application was, with its environment, directory, user and capabilities. private
// says that only its sentry knows the environment.
func Exec(store *actual.Store, rec *actual.Record, argv []string) (args wire.ExecArgs, private bool, err error) {
	if rec.SetupFile {
		b, err := store.Setup(rec.Name)
		if err != nil {
			return args, false, untold(rec, err)
		}
		if args, private, err = setup.DecodeExec(rec, b, argv); err != nil {
			return args, false, untold(rec, err)
		}
		return args, private, nil
	}
	st, err := earlierSetup(store, rec)
	if err != nil {
		return args, false, err
	}
	p := *st.App().Spec.Process
	p.Args = argv
	return st.Exec(&p), false, nil
}

// ContainerExec starts one more process in a container, as its OCI description
// says.
func ContainerExec(store *actual.Store, rec *actual.Record, p *specs.Process) (wire.ExecArgs, error) {
	if !rec.SetupFile {
		// An earlier version created it. The copy of its config.json tells, also when
		// its bundle is gone.
		cfg, err := Config(store, rec.Name)
		if err != nil {
			return wire.ExecArgs{}, err
		}
		st := setup.Setup{RawSockets: setup.RawSockets(cfg)}
		return st.Exec(p), nil
	}
	st, err := Of(store, rec)
	if err != nil {
		return wire.ExecArgs{}, err
	}
	return st.Exec(p), nil
}
