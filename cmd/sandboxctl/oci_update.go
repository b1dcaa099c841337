// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/oci"
)

// parseBytes reads an amount of memory; -1 is none.
func parseBytes(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	var b desired.Bytes
	if err := b.UnmarshalJSON([]byte(strconv.Quote(s))); err != nil {
		return 0, err
	}
	return int64(b), nil
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
	fl.String("kernel-memory", "", "taken for runc's sake: kernels have no such limit any more")
	fl.String("cpu-rt-period", "", "taken for runc's sake: a sandbox has no realtime processes")
	return cmd
}
