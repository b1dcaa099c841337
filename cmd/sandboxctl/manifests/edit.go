// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/desired"
)

func (v verbs) editCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "edit NAME...",
		Short: "Edit the manifests of sandboxes",
		Long: `Open the manifest file of a sandbox in $VISUAL, $EDITOR or vi. What was saved is
checked and then put in its place, whole; if anything is wrong with it, the
editor is opened again with the problems at the top. Nothing changes if nothing
was saved, or the file was emptied. The files of several sandboxes are opened one
after the other, each once; if the editor fails, the others are not opened.`,
		Example:           "  sandboxctl edit web\n  EDITOR='code --wait' sandboxctl edit web db",
		ValidArgsFunction: v.CompleteAll,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("expected a NAME")
			}
			return v.editAll(cmd.Context(), args)
		},
	}
}

func (v verbs) editAll(ctx context.Context, names []string) error {
	w, err := v.OnceSettled(ctx)
	if err != nil {
		return err
	}
	type edit struct{ name, file string }
	var edits []edit
	for _, n := range names {
		file, defined := desired.FileFor(w.In.Desired, n)
		if !defined {
			return w.NoSuch(n)
		}
		if !slices.ContainsFunc(edits, func(e edit) bool { return e.file == file }) {
			edits = append(edits, edit{n, file})
		}
	}
	for _, e := range edits {
		if err := v.edit(ctx, e.name, e.file); err != nil {
			return err
		}
	}
	v.NoteNotRunning(w)
	return nil
}

func (v verbs) edit(ctx context.Context, name, file string) (err error) {
	dir, base, old, err := v.openFile(file)
	if err != nil {
		return fmt.Errorf("edit %s: %w", name, err)
	}
	defer dir.Close()
	policy, err := v.HostPolicy()
	if err != nil {
		return err
	}
	// In a directory of root's own: editors keep copies beside what they edit.
	tmp, err := os.MkdirTemp("", "sandboxctl-edit-")
	if err != nil {
		return fmt.Errorf("edit %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, removeEdited(tmp)) }()
	text, err := v.editText(ctx, filepath.Join(tmp, base), old, func(text []byte) error {
		_, problems := desired.Decoder{Policy: policy}.Decode(file, text)
		if len(problems) > 0 {
			return problemsError(problems)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("edit %s: %w", name, err)
	}
	if text == nil {
		fmt.Fprintf(v.Stdout, "%s unchanged\n", label(name))
		return nil
	}
	now, err := readBelow(dir, base)
	if err != nil || !bytes.Equal(now, old) {
		return errors.Join(fmt.Errorf("edit %s: %s was changed by somebody else meanwhile; nothing is written", name, file), err)
	}
	if err := atomicfile.Write(dir, base, text, modeOf(dir, base)); err != nil {
		return fmt.Errorf("edit %s: %w", name, err)
	}
	fmt.Fprintf(v.Stdout, "%s edited (%s)\n", label(name), file)
	return nil
}

// problemMark begins the lines in which the editor is told what is wrong.
const problemMark = "#! "

// editText has a text edited until it passes the check. It returns nil if it is to
// stay as it was.
func (v verbs) editText(ctx context.Context, file string, old []byte, check func([]byte) error) ([]byte, error) {
	shown, last := old, []byte(nil)
	for {
		if err := writeEdited(file, shown); err != nil {
			return nil, err
		}
		if err := v.runEditor(ctx, file); err != nil {
			return nil, err
		}
		saved, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		text := withoutProblems(saved)
		if len(bytes.TrimSpace(text)) == 0 || bytes.Equal(text, old) {
			return nil, nil
		}
		err = check(text)
		if err == nil {
			return text, nil
		}
		if bytes.Equal(text, last) {
			return nil, err // the same again: there is no use in asking for ever
		}
		last = text
		var top strings.Builder
		for line := range strings.Lines(err.Error()) {
			top.WriteString(problemMark + strings.TrimRight(line, "\n") + "\n")
		}
		shown = append([]byte(top.String()), text...)
	}
}

func writeEdited(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// removeEdited removes the directory of an edit, with what the editor left there.
func removeEdited(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, root.RemoveAll(e.Name()))
	}
	return errors.Join(err, os.Remove(dir))
}

func withoutProblems(text []byte) []byte {
	for bytes.HasPrefix(text, []byte(problemMark)) {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text
}

func (v verbs) runEditor(ctx context.Context, file string) error {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	// As git and kubectl do it: an editor may have arguments.
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$@"`, editor, file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = v.Stdin, v.Stdout, v.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run editor %q: %w", editor, err)
	}
	return nil
}
