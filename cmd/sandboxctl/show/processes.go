// SPDX-License-Identifier: Apache-2.0

package show

import (
	"io"
	"strconv"

	"sandboxctl.dev/launcher/wire"
)

// Processes prints a table of the processes in a sandbox.
func Processes(w io.Writer, ps []wire.Process) error {
	rows := make([][]string, len(ps))
	for i, p := range ps {
		rows[i] = []string{
			strconv.Itoa(int(p.UID)), strconv.Itoa(int(p.PID)), strconv.Itoa(int(p.PPID)),
			Clean(p.State), Clean(p.TTY), Clean(p.STime), Clean(p.Time), Clean(p.Cmd),
		}
	}
	return Table(w, []string{"UID", "PID", "PPID", "STATE", "TTY", "STARTED", "TIME", "COMMAND"}, rows)
}
