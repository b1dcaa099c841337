// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

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

func (a *app) ociUpdateCommand(f *ociFlags) *cobra.Command {
	var (
		file, cpus, mems    string
		memory, reservation string
		swap                string
		quota, pids         int64
		period, shares      uint64
		weight              uint16
	)
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change the resources of a container",
		Long: `Change the resources of a container while it lives. The kernel enforces them at
once; the numbers of processors and the amount of memory that the guest sees
stay as they were at its start.

--resources reads them as JSON, in the form of linux.resources, from a file or
with "-" from standard input; the other flags are not looked at then.`,
		Example: `  sandboxctl oci update --memory 256Mi --pids-limit 100 web
  echo '{"cpu": {"quota": 50000, "period": 100000}}' | sandboxctl oci update -r - web`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r specs.LinuxResources
			if file != "" {
				if err := oci.ReadResources(file, a.stdin, &r); err != nil {
					return err
				}
			} else {
				set := cmd.Flags().Changed
				m, c := &specs.LinuxMemory{}, &specs.LinuxCPU{Cpus: cpus, Mems: mems}
				for _, b := range []struct {
					flag, text string
					to         **int64
				}{{"memory", memory, &m.Limit}, {"memory-reservation", reservation, &m.Reservation}, {"memory-swap", swap, &m.Swap}} {
					if !set(b.flag) {
						continue
					}
					n, err := parseBytes(b.text)
					if err != nil {
						return usagef("--%s: %v", b.flag, err)
					}
					*b.to = &n
				}
				if set("cpu-quota") {
					c.Quota = &quota
				}
				if set("cpu-period") {
					c.Period = &period
				}
				if set("cpu-share") {
					c.Shares = &shares
				}
				if set("pids-limit") {
					r.Pids = &specs.LinuxPids{Limit: pids}
				}
				if set("blkio-weight") {
					r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
				}
				r.Memory, r.CPU = m, c
			}
			return a.with(f, func(rt *oci.Runtime) error { return rt.Update(cmd.Context(), args[0], &r) })
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&file, "resources", "r", "", "file with the resources as JSON, or -")
	fl.StringVar(&memory, "memory", "", "limit of memory, in bytes or as 256Mi (-1: none)")
	fl.StringVar(&reservation, "memory-reservation", "", "memory that is left to it as long as possible")
	fl.StringVar(&swap, "memory-swap", "", "limit of memory and swap together (-1: none)")
	fl.Int64Var(&quota, "cpu-quota", 0, "microseconds of processor time in a period (-1: no limit)")
	fl.Uint64Var(&period, "cpu-period", 0, "length of a period, in microseconds")
	fl.Uint64Var(&shares, "cpu-share", 0, "relative weight, 2 to 262144")
	fl.StringVar(&cpus, "cpuset-cpus", "", "processors to use, such as 0-2,7")
	fl.StringVar(&mems, "cpuset-mems", "", "memory nodes to use")
	fl.Int64Var(&pids, "pids-limit", 0, "how many processes of the host it may have (-1: no limit)")
	fl.Uint16Var(&weight, "blkio-weight", 0, "relative weight for block devices, 10 to 1000")
	// Kernels have no such limits any more, and a sandbox no realtime processes.
	takenStrings(fl, "kernel-memory", "kernel-memory-tcp", "cpu-rt-period", "cpu-rt-runtime")
	return cmd
}
