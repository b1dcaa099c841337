// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"os"
	"path"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

// verbs are the verbs of one run of the program.
type verbs struct{ *world.Host }

// Commands are all of them.
func Commands(h *world.Host) []*cobra.Command {
	v := verbs{h}
	return []*cobra.Command{
		v.applyCommand(), v.deleteCommand(), v.diffCommand(), v.validateCommand(), v.stopCommand(), v.startCommand(), v.editCommand(),
	}
}

// onlyFiles is exit.NoArgs of a verb whose files are named by -f.
func onlyFiles(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && !cmd.Flags().Changed("filename") {
		return exit.Usagef("unexpected argument %q; did you mean -f %s?", args[0], args[0])
	}
	return exit.NoArgs(cmd, args)
}

// openFile opens the directory of a manifest file and reads the file, to change it.
func (v verbs) openFile(file string) (dir *os.File, base string, text []byte, err error) {
	if dir, err = os.Open(path.Join(v.Manifests, path.Dir(file))); err != nil {
		return nil, "", nil, err
	}
	base = path.Base(file)
	if text, err = readBelow(dir, base); err != nil {
		dir.Close()
		return nil, "", nil, err
	}
	return dir, base, text, nil
}
