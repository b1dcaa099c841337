// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"context"

	"github.com/spf13/cobra"

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
	cmd := v.command("checkpoint ID", "Save the state of a running container",
		`Save the state of a running container in a directory, which is made if it is not
there and must not hold a checkpoint. The container is stopped, unless --leave-running
is given.`,
		"checkpoint --image-path /srv/web-1 --leave-running web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return r.Checkpoint(ctx, id, image, leave) })
	imageFlags(cmd, &image)
	cmd.Flags().BoolVar(&leave, "leave-running", false, "do not stop the container")
	cmd.Flags().Int("status-fd", -1, ignored)
	return cmd
}

func (v *Verbs) restoreCommand() *cobra.Command {
	c := &createFlags{}
	cmd := v.command("restore ID", "Create a container and resume it from a checkpoint",
		`Create a container of a bundle and resume it from a checkpoint; `+"`run`"+` starts one
afresh. Whether that can work is checked first: mounts, process and security
settings of the bundle, the version of gVisor and the features of the processor
must be those of the checkpoint.`,
		"restore --detach --bundle /srv/bundle --image-path /srv/web-1 web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return v.run(ctx, r, c, id) })
	c.add(cmd)
	c.addRun(cmd)
	imageFlags(cmd, &c.image)
	takenStrings(cmd.Flags(), "lsm-profile", "lsm-mount-context")
	return cmd
}
