// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
)

// pointers are verbs of other tools that people type. They are in no list, and say
// which way it is done here.
func (a *app) pointers() (out []*cobra.Command) {
	for verb, advice := range map[string]string{
		"create":  "write a manifest and `sandboxctl apply -f FILE`",
		"attach":  "an application has no terminal to attach to; see `sandboxctl logs -f NAME` and `sandboxctl exec -it NAME -- sh`",
		"inspect": "see `sandboxctl describe NAME` and `sandboxctl get NAME -o yaml`",
		"pause":   "`sandboxctl stop NAME` ends a sandbox and keeps its manifest; `sandboxctl checkpoint` keeps its memory too",
		"update":  "`sandboxctl edit NAME`, or change the manifest and `sandboxctl apply -f FILE`",
		"recover": "`sandboxctl repair NAME`",
		"status":  "see `sandboxctl get`, and `sandboxctl doctor` for the host",
		"info":    "see `sandboxctl doctor`, and `sandboxctl version`",
		"show":    "see `sandboxctl describe NAME`",
		"up":      "`sandboxctl apply -f FILE --wait`",
		"down":    "`sandboxctl delete -f FILE --wait`, or `sandboxctl stop NAME`, which keeps the manifest",
		"tail":    "`sandboxctl logs -f NAME`",
		"check":   "`sandboxctl validate FILE` for manifests, `sandboxctl doctor` for the host",
		"lint":    "`sandboxctl validate FILE`",
		"explain": "each field of a manifest is in docs/reference/manifest.md; `sandboxctl validate FILE` says what is wrong with one",
		"unpause": "`sandboxctl start NAME`",
		"rename":  "apply the manifest with another name, and `sandboxctl delete` the old one",
		"scale":   "a manifest is one sandbox: write one for each",
		"rollout": "`sandboxctl restart NAME --wait`",
		"pull":    "`sandboxctl image pull REFERENCE`",
		"images":  "`sandboxctl image ls`",
		"rmi":     "`sandboxctl image rm REFERENCE`",
		"prune":   "`sandboxctl image prune`; nothing else is left behind, which `sandboxctl doctor` checks",
		"load":    "`sandboxctl image pull archive:FILE`",
		"import":  "`sandboxctl image import DIRECTORY NAME`",
		"build":   "build images with docker, podman or buildah; `sandboxctl image import` makes one of a directory",
		"login":   "`docker login` or `podman login` as root: their credentials are used",
	} {
		out = append(out, entry.Pointer(verb, advice))
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
	if euid == 0 || !a.flags().Default() {
		return nil
	}
	if slices.Contains(anybody, cmd.Name()) || !cmd.HasParent() || cmd.Parent().Name() == ocicmd.Verb || cmd.Hidden {
		return nil
	}
	return entry.NotRoot(cmd.Name(), euid)
}
