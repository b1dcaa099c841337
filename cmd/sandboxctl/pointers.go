// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
)

// pointers are verbs of other tools that people type. They are in no list, and say
// which way it is done here.
func (a *app) pointers() (out []*cobra.Command) {
	for verb, advice := range map[string]string{
		"run": "sandboxes are described by manifests: write one and `sandboxctl apply -f FILE`, or drop it into the manifests directory; " +
			"`sandboxctl exec NAME -- COMMAND` runs a command in a sandbox, `sandboxctl oci run` a container of an OCI bundle",
		"create":  "write a manifest and `sandboxctl apply -f FILE`",
		"attach":  "an application has no terminal to attach to; see `sandboxctl logs -f NAME` and `sandboxctl exec -it NAME -- sh`",
		"inspect": "see `sandboxctl describe NAME` and `sandboxctl get NAME -o yaml`",
		"pause":   "`sandboxctl stop NAME` ends a sandbox and keeps its manifest; `sandboxctl checkpoint` keeps its memory too",
		"update":  "`sandboxctl edit NAME`, or change the manifest and `sandboxctl apply -f FILE`",
		"cp":      "pipe through exec: `tar c DIR | sandboxctl exec -i NAME -- tar x -C /`",
		"recover": "`sandboxctl repair NAME`",
		"status":  "see `sandboxctl get`, and `sandboxctl doctor` for the host",
	} {
		out = append(out, &cobra.Command{
			Use: verb, Hidden: true, Short: "Not a verb here: " + advice, Long: "Not a verb here: " + advice + ".",
			Example: "  sandboxctl help", DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return exit.Usagef("there is no %q: %s", verb, advice) },
		})
	}
	return out
}

// anybody are the verbs that need no access to the manifests and the state of the
// host.
var anybody = []string{
	"help", "completion", "bash", "zsh", "fish", "powershell", "version", "validate", "doctor", ocicmd.Verb,
	cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd,
}

// checkRoot fails where somebody else than root means the sandboxes of the host
// and would get empty directories of their own.
func (a *app) checkRoot(cmd *cobra.Command, euid int) error {
	if euid == 0 || a.manifests != defaultManifests || a.state != defaultState {
		return nil
	}
	if slices.Contains(anybody, cmd.Name()) || !cmd.HasParent() || cmd.Parent().Name() == ocicmd.Verb || cmd.Hidden {
		return nil
	}
	return fmt.Errorf("the sandboxes of this host are root's, and you are not root (uid %d): try `sudo sandboxctl %s`, or name directories of your own with --manifests and --state",
		euid, cmd.Name())
}
