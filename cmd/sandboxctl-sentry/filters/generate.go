// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Generate compiles the seccomp programs of the sentry and prints what belongs into
// programs.json. It needs no privilege but user namespaces.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"syscall"

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap"
	"gvisor.dev/gvisor/runsc/boot/filter/config"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run() error {
	if os.Getpid() != 1 {
		return asProcess1()
	}
	systrap, err := platform.Lookup("systrap")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, info := range systrap.PrecompiledSeccompInfo() {
		for _, directFS := range []bool{false, true} {
			for _, network := range [][2]bool{{false, false}, {true, false}, {true, true}} {
				opt := config.Options{Platform: info, HostFilesystem: directFS, HostNetwork: network[0], HostNetworkRawSockets: network[1]}
				if err := write(&out, opt); err != nil {
					return fmt.Errorf("%s: %w", opt.ConfigKey(), err)
				}
			}
		}
	}
	_, err = os.Stdout.Write(out.Bytes())
	return err
}

// asProcess1 calls this program again as the first process of a namespace, as every
// sentry is: gVisor writes the number of the process that compiles into a rule
// (pkg/sentry/platform/systrap/filters.go, SYS_RT_TGSIGQUEUEINFO).
func asProcess1() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
	}
	return cmd.Run()
}

// withValues are the options of a platform with other values of the variables: those
// of a platform take precedence over all others.
type withValues struct {
	platform.SeccompInfo
	values precompiledseccomp.Values
}

func (w withValues) Variables() precompiledseccomp.Values { return w.values }

// write compiles one program and appends it to out.
func write(out *bytes.Buffer, opt config.Options) error {
	names := slices.Sorted(maps.Keys(opt.Vars()))
	p, err := precompiledseccomp.Precompile(opt.ConfigKey(), names, func(values precompiledseccomp.Values) *seccomp.Program {
		placeholders := opt
		placeholders.Platform = withValues{opt.Platform, values}
		return program(placeholders)
	})
	if err != nil {
		return err
	}
	code, err := binary.Append(nil, binary.LittleEndian, p.Bytecode32)
	if err != nil {
		return err
	}
	for _, fd := range []uint32{3, 17, 70000} {
		opt.ControllerFD = fd
		if err := compare(p, opt); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(map[string]any{"name": p.Name, "code": code, "vars": p.VarOffsets})
}

// program is what gVisor compiles when it has no program for the options
// (runsc/boot/filter/filter.go, Install).
func program(opt config.Options) *seccomp.Program {
	rules, deny := config.Rules(opt)
	return &seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: deny}, {Rules: rules, Action: seccomp.Allow}},
		Options:  config.SeccompOptions(opt),
	}
}

// compare compares a program, instruction by instruction, with what gVisor compiles
// for a sentry.
func compare(p precompiledseccomp.Program, opt config.Options) error {
	got, err := p.RenderInstructions(opt.Vars())
	if err != nil {
		return err
	}
	want, _, err := program(opt).Build()
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d instructions, gVisor compiles %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			return fmt.Errorf("instruction %d is %v, gVisor compiles %v", i, got[i], want[i])
		}
	}
	return nil
}
