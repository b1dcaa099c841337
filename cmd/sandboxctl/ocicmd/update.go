// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/oci"
)

// parseBytes reads an amount of memory as runc does: every unit is a power of
// 1024, as 64m, 64M, 64MB or 64MiB; -1 is none.
func parseBytes(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	number := strings.ToLower(s)
	shift := 0
	for i, unit := range []string{"k", "m", "g", "t"} {
		for _, suffix := range []string{unit, unit + "i", unit + "b", unit + "ib"} {
			if n, ok := strings.CutSuffix(number, suffix); ok && shift == 0 {
				number, shift = n, 10*(i+1)
			}
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf(`expected an amount such as "256Mi" or 268435456, got %q`, s)
	}
	return n << shift, nil
}

// updateFlags are the resources of `oci update` that are given one by one.
type updateFlags struct {
	memory, reservation, swap, kernelTCP string
	cpus, mems                           string
	quota, rtRuntime, idle, pids         int64
	period, burst, shares, rtPeriod      uint64
	weight                               uint16
}

func (u *updateFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&u.memory, "memory", "", "limit of memory, in bytes or as 256Mi (-1: none)")
	fl.StringVar(&u.reservation, "memory-reservation", "", "memory that the kernel leaves to it for as long as possible")
	fl.StringVar(&u.swap, "memory-swap", "", "limit of memory and swap together (-1: none)")
	fl.StringVar(&u.kernelTCP, "kernel-memory-tcp", "", "limit of the kernel's buffers for TCP (cgroup v1)")
	fl.Int64Var(&u.quota, "cpu-quota", 0, "microseconds of processor time in a period (-1: no limit)")
	fl.Uint64Var(&u.period, "cpu-period", 0, "length of a period, in microseconds")
	fl.Uint64Var(&u.burst, "cpu-burst", 0, "microseconds that may be saved from one period for another")
	fl.Uint64Var(&u.shares, "cpu-share", 0, "relative weight, 2 to 262144")
	fl.Int64Var(&u.idle, "cpu-idle", 0, "1: run only when nothing else does")
	fl.Uint64Var(&u.rtPeriod, "cpu-rt-period", 0, "length of a period of realtime processes, in microseconds (cgroup v1)")
	fl.Int64Var(&u.rtRuntime, "cpu-rt-runtime", 0, "microseconds of such a period that realtime processes may use (cgroup v1)")
	fl.StringVar(&u.cpus, "cpuset-cpus", "", "processors to use, such as 0-2,7")
	fl.StringVar(&u.mems, "cpuset-mems", "", "memory nodes to use")
	fl.Int64Var(&u.pids, "pids-limit", 0, "how many processes of the host it may have (-1: no limit)")
	fl.Uint16Var(&u.weight, "blkio-weight", 0, "relative weight for block devices, 10 to 1000")
	// Kernels have no such limit any more: --memory counts it in.
	takenStrings(fl, "kernel-memory")
}

// zero are the flags whose value 0 changes nothing: clients that write resources as JSON
// mean by it that a field is not set.
var zero = []string{
	"memory", "memory-reservation", "memory-swap", "kernel-memory-tcp", "cpu-quota", "cpu-period", "cpu-share", "cpu-rt-period", "cpu-rt-runtime",
	"pids-limit", "blkio-weight",
}

// checkZero refuses those that are given as 0, which would change nothing.
func checkZero(fl *pflag.FlagSet) error {
	for _, name := range zero {
		f := fl.Lookup(name)
		if n, err := parseBytes(f.Value.String()); f.Changed && err == nil && n == 0 {
			return exit.Usagef("--%s: 0 changes nothing; leave it out, or give -1 where that is no limit", name)
		}
	}
	return nil
}

// given is a pointer to what a flag says, nil if it was not given.
func given[T any](fl *pflag.FlagSet, flag string, value *T) *T {
	if !fl.Changed(flag) {
		return nil
	}
	return value
}

func (u *updateFlags) resources(fl *pflag.FlagSet) (*specs.LinuxResources, error) {
	if err := checkZero(fl); err != nil {
		return nil, err
	}
	m := &specs.LinuxMemory{}
	for _, b := range []struct {
		flag, text string
		to         **int64
	}{
		{"memory", u.memory, &m.Limit},
		{"memory-reservation", u.reservation, &m.Reservation},
		{"memory-swap", u.swap, &m.Swap},
		{"kernel-memory-tcp", u.kernelTCP, &m.KernelTCP},
	} {
		if !fl.Changed(b.flag) {
			continue
		}
		n, err := parseBytes(b.text)
		if err != nil {
			return nil, exit.Usagef("--%s: %v", b.flag, err)
		}
		*b.to = &n
	}
	r := &specs.LinuxResources{Memory: m, CPU: &specs.LinuxCPU{
		Quota: given(fl, "cpu-quota", &u.quota), Period: given(fl, "cpu-period", &u.period), Burst: given(fl, "cpu-burst", &u.burst),
		Shares: given(fl, "cpu-share", &u.shares), Idle: given(fl, "cpu-idle", &u.idle), Cpus: u.cpus, Mems: u.mems,
		RealtimePeriod: given(fl, "cpu-rt-period", &u.rtPeriod), RealtimeRuntime: given(fl, "cpu-rt-runtime", &u.rtRuntime),
	}}
	if fl.Changed("pids-limit") {
		r.Pids = &specs.LinuxPids{Limit: u.pids}
	}
	if fl.Changed("blkio-weight") {
		r.BlockIO = &specs.LinuxBlockIO{Weight: &u.weight}
	}
	return r, nil
}

func (v *Verbs) updateCommand() *cobra.Command {
	var (
		file string
		u    updateFlags
	)
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change the resources of a container",
		Long: `Change the resources of a container while it lives. The kernel enforces them at
once; the numbers of processors and the amount of memory that the guest sees
stay as they were at its start. Values that are not given stay as they are:
--cpu-period alone keeps the quota. If a value can't be set, nothing is changed.

--resources reads them as JSON, in the form of linux.resources, from a file or
with "-" from standard input; the other flags are ignored then.`,
		Example: `  sandboxctl oci update --memory 256Mi --pids-limit 100 web
  sandboxctl oci update --cpu-quota 50000 --cpu-period 100000 web
  echo '{"cpu": {"quota": 50000, "period": 100000}}' | sandboxctl oci update -r - web`,
		Args: exit.Args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := u.resources(cmd.Flags())
			if file != "" {
				r = &specs.LinuxResources{}
				err = oci.ReadResources(file, v.streams.In, r)
			}
			if err != nil {
				return err
			}
			return v.with(func(rt *oci.Runtime) error { return rt.Update(cmd.Context(), args[0], r) })
		},
	}
	cmd.Flags().StringVarP(&file, "resources", "r", "", "file with the resources as JSON, or -")
	u.add(cmd.Flags())
	return cmd
}
