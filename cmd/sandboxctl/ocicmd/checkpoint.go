// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/oci"
)

// imageFlags are runc's for checkpoint and restore; those that only CRIU would
// understand are taken and do nothing, but for those that would make another kind
// of checkpoint: they are refused.
func imageFlags(cmd *cobra.Command, image *string) {
	fl := cmd.Flags()
	fl.StringVar(image, "image-path", "checkpoint", "directory of the checkpoint")
	takenStrings(fl, "work-path", "manage-cgroups-mode")
	fl.StringArray("empty-ns", nil, ignored)
	takenBools(fl, "tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup")
}

func (v *Verbs) checkpointCommand() *cobra.Command {
	var (
		image string
		leave bool
	)
	cmd := &cobra.Command{
		Use:   "checkpoint ID",
		Short: "Save the state of a running container",
		Long: `Save the state of a running container in a directory, which is made if it is not
there and must not hold a checkpoint. The container ends, unless it is to be left
running.`,
		Example: "  sandboxctl oci checkpoint --image-path /srv/web-1 --leave-running web",
		Args:    exit.Args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.with(func(r *oci.Runtime) error { return r.Checkpoint(cmd.Context(), args[0], image, leave) })
		},
	}
	imageFlags(cmd, &image)
	cmd.Flags().BoolVar(&leave, "leave-running", false, "do not stop the container")
	cmd.Flags().Int("status-fd", -1, ignored)
	return cmd
}

func (v *Verbs) restoreCommand() *cobra.Command {
	c := &createFlags{}
	cmd := &cobra.Command{
		Use:   "restore ID",
		Short: "Create a container and resume it from a checkpoint",
		Long: `Create a container of a bundle and resume it from a checkpoint, as ` + "`run`" + ` starts
it afresh. Before anything is created it is checked whether that can work: mounts,
process and security settings of the bundle, the version of gVisor and the
features of the processor must be those of the checkpoint.`,
		Example: "  sandboxctl oci restore --detach --bundle /srv/bundle --image-path /srv/web-1 web",
		Args:    exit.Args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.with(func(r *oci.Runtime) error { return v.run(cmd.Context(), r, c, args[0]) })
		},
	}
	c.add(cmd)
	c.addRun(cmd)
	imageFlags(cmd, &c.image)
	takenStrings(cmd.Flags(), "lsm-profile", "lsm-mount-context")
	return cmd
}
