// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/wire"
)

// CommandError says in users' words why a command can't be started. What it says
// is fit for a terminal.
type CommandError struct {
	text string
	// NotFound says that the command is not there, as opposed to one that is no program.
	NotFound bool
	// other says that nobody knows whether it lasts.
	other bool
	cause error
}

func (e *CommandError) Error() string { return e.text }
func (e *CommandError) Unwrap() error { return e.cause }

// PreconditionFailed says whether it lasts until somebody changes the root or the manifest.
func (e *CommandError) PreconditionFailed() bool { return !e.other }

// What gVisor says, see user.ResolveExecutablePath and loader.Load.
var (
	notInPath    = pattern(`error finding executable "(.*)" in PATH \[(.*)\]: (.*)$`)
	notLoaded    = pattern(`failed to load (.*): ([^:]+)$`)
	noMadeDir    = pattern(`failed to create process working directory "(.*?)": (?:.*: )?([^:]*)$`)
	noProcess    = pattern(`(^|: )try again$`) // kernel.UserCounters
	noWorkingDir = pattern(`failed to find initial working directory "(.*)": (.*)$`)
)

// pattern is a regular expression that is compiled when it is needed: every verb would
// wait for all of them.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// MaxInterpreterLine is how much of a script Linux looks at.
const MaxInterpreterLine = 256

// ExplainCommand describes the error of a command that was not started. peek returns
// the beginning of a file of the sandbox, nil if it can't be read.
func ExplainCommand(err error, peek func(path string) []byte) error {
	var remote *RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	message := remote.Message
	e := &CommandError{cause: err}
	switch {
	case notInPath().MatchString(message):
		m := notInPath().FindStringSubmatch(message)
		e.explainPath(m[1], m[2], m[3])
	case noProcess().MatchString(message):
		e.other = true
		e.text = "no process can be started in the sandbox: its user has as many as the limit NPROC allows; end some of them, restart the sandbox, " +
			"or run the command as another user (exec --user); resources.pids or rlimits in the manifest set the limit"
	case noWorkingDir().MatchString(message):
		m := noWorkingDir().FindStringSubmatch(message)
		e.other = !lasting(m[2])
		e.text = fmt.Sprintf("working directory not found in the sandbox: %s (%s)", m[1], m[2])
	case noMadeDir().MatchString(message):
		m := noMadeDir().FindStringSubmatch(message)
		e.other = !lasting(m[2])
		e.text = fmt.Sprintf("working directory not found in the sandbox, and it can't be made: %s (%s)", m[1], m[2])
	case notLoaded().MatchString(message):
		m := notLoaded().FindStringSubmatch(message)
		e.explainFile(m[1], m[2], peek)
	default:
		e.other = true
		message = strings.TrimPrefix(message, "starting sandbox: ")
		e.text = "the application can't be started: " + strings.TrimPrefix(message, "creating process: ")
	}
	e.text = untrusted.Line(e.text, 1000)
	return e
}

func (e *CommandError) explainPath(name, dirs, why string) {
	if why == unix.ENOENT.Error() {
		e.NotFound = true
		e.text = fmt.Sprintf("command not found in the sandbox: %s (PATH %s)", name, strings.ReplaceAll(dirs, " ", ":"))
		return
	}
	e.other = !lasting(why)
	e.text = fmt.Sprintf("command can't be executed in the sandbox: %s (%s)", name, why)
}

// lasting says of an error of a path whether it is about what is there, and is the same
// until somebody changes that. Others, as of a disk or of memory that ran out, may be over at
// the next try: a root that is an image would not get one.
func lasting(why string) bool {
	return slices.ContainsFunc([]unix.Errno{
		unix.ENOENT, unix.ENOTDIR, unix.EEXIST, unix.EINVAL, unix.EISDIR, unix.EACCES, unix.EPERM, unix.EROFS, unix.ELOOP, unix.ENAMETOOLONG, unix.ENOEXEC,
	}, func(e unix.Errno) bool { return why == e.Error() })
}

func (e *CommandError) explainFile(file, why string, peek func(string) []byte) {
	line := firstLine(peek(file))
	interpreter, script := bytes.CutPrefix(line, []byte("#!"))
	switch why {
	case unix.ENOENT.Error():
		e.NotFound = true
		switch {
		case script && bytes.HasSuffix(line, []byte("\r")):
			e.text = fmt.Sprintf(`%s has Windows line ends (CRLF): its #! line asks for the interpreter %q, which does not exist; convert the file, as with sed -i 's/\r$//'`, file, bytes.TrimLeft(interpreter, " \t"))
		case script:
			e.text = fmt.Sprintf("interpreter not found in the sandbox: %s, from the #! line of %s", firstWord(interpreter), file)
		case bytes.HasPrefix(line, []byte("\x7fELF")):
			e.text = fmt.Sprintf("%s is there, but the dynamic loader that it was built for is not in the sandbox (another libc?)", file)
		default:
			e.text = "command not found in the sandbox: " + file
		}
	case unix.EACCES.Error():
		e.text = fmt.Sprintf("%s can't be executed in the sandbox: it is a directory, or its mode forbids it (chmod +x)", file)
	case unix.ENOEXEC.Error():
		e.text = fmt.Sprintf("%s can't be executed in the sandbox: it is neither a program for this processor nor a script with a #! line", file)
	default:
		e.other = !lasting(why)
		e.text = fmt.Sprintf("%s can't be executed in the sandbox: %s", file, why)
	}
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}

func firstWord(b []byte) []byte {
	word, _, _ := bytes.Cut(bytes.TrimLeft(b, " \t"), []byte(" "))
	return word
}

// ExplainCommand describes the error of Execute. It reads the beginning of the command
// where that helps.
func (c *Container) ExplainCommand(ctx context.Context, err error) error {
	return ExplainCommand(err, func(p string) []byte { return c.peek(ctx, p) })
}

// peek returns the beginning of a file in the sandbox.
func (c *Container) peek(ctx context.Context, p string) []byte {
	r, w, err := proc.Pipe()
	if err != nil {
		return nil
	}
	defer r.Close()
	err = c.call(ctx, wire.MethodRead, wire.ReadArgs{ContainerID: c.id, Path: p, Size: MaxInterpreterLine}, nil, w)
	w.Close()
	if err != nil {
		return nil
	}
	// Fewer bytes than a pipe holds: they are there by now.
	if err := unix.SetNonblock(int(r.Fd()), true); err != nil {
		return nil
	}
	b := make([]byte, MaxInterpreterLine)
	n, err := unix.Read(int(r.Fd()), b)
	if err != nil {
		return nil
	}
	return b[:n]
}
