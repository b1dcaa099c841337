// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

// ExitExec is the exit code of runc's exec if it is not that of the command.
const ExitExec = 255

// Failed tells of an error as runc does: clients read it from --log, in the
// format they want, and know no exit code but 1, and 255 of exec.
func (v *Verbs) Failed(cmd *cobra.Command, err error) int {
	e, coded := errors.AsType[*exit.Error](err)
	if coded && e.Err == nil {
		return e.Code
	}
	f := &v.flags
	if f.Log == "" && f.LogFormat == "json" {
		if werr := f.writeError(v.streams.Err, err); werr != nil {
			fmt.Fprintf(v.streams.Err, "sandboxctl: %s\n", show.CleanLines(err.Error()))
		}
	} else {
		fmt.Fprintf(v.streams.Err, "sandboxctl: %s\n", show.CleanLines(err.Error()))
		if coded && e.Code == exit.Usage {
			fmt.Fprintf(v.streams.Err, "See `%s --help`.\n", cmd.CommandPath())
		}
	}
	if lerr := f.logError(err); lerr != nil {
		fmt.Fprintf(v.streams.Err, "sandboxctl: %v\n", lerr)
	}
	if cmd.Name() == "exec" || cmd.Name() == attendVerb {
		return ExitExec
	}
	return exit.Failure
}

// logError appends an error to --log.
func (f *Flags) logError(cause error) error {
	if f.Log == "" {
		return nil
	}
	w, err := os.OpenFile(f.Log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	if err = errors.Join(f.writeError(w, cause), w.Close()); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// writeError writes an error in the form that clients of runc parse.
func (f *Flags) writeError(w io.Writer, cause error) error {
	entry := struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{"error", cause.Error(), time.Now().Format(time.RFC3339)}
	if f.LogFormat == "json" {
		return json.NewEncoder(w).Encode(entry)
	}
	_, err := fmt.Fprintf(w, "time=%q level=%s msg=%q\n", entry.Time, entry.Level, entry.Msg)
	return err
}
