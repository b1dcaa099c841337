// SPDX-License-Identifier: Apache-2.0

// Command sandboxctl-gofer is the file server of one sandbox. sandboxctl's
// launcher starts it; nobody else has reason to.
//
// It is a program of its own so that no code of sandboxctl (command line, YAML,
// planner, networks) is in a process that handles the requests of a hostile
// sandbox, makes it larger or makes it start later. It holds no policy: what it
// serves was decided by the launcher and arrives as a configuration and file
// descriptors.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/gofer/server"
	"sandboxctl.dev/launcher/wire"
)

func main() {
	os.Exit(run(os.Args))
}

// run must do nothing that starts a goroutine or a thread before server.Main has
// given up the privileges of all of them.
func run(argv []string) int {
	if argv[0] == wire.WaitingName {
		return wait(argv)
	}
	if len(argv) != 2 || argv[1] != "version" {
		return server.Main(argv)
	}
	if err := gofer.CanRun(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return gofer.ExitFailed
	}
	fmt.Println(wire.Handshake(gofer.Argv0, gofer.Protocol, wire.GVisorVersion()))
	return gofer.ExitOK
}

// wait waits for a sandbox in an empty jail, and serves its files. Until then it does nothing,
// and ends with the daemon that started it.
func wait(argv []string) int {
	wire.BeginWait()
	// There is no garbage but that of the preparation, and a collection each two minutes
	// would take processor time from those who work.
	percent := debug.SetGCPercent(-1)
	p, err := server.Prepare()
	if err != nil {
		fmt.Fprintf(os.Stderr, "gofer: %v\n", err)
		return gofer.ExitFailed
	}
	args, accept, err := wire.Wait(argv)
	if err == nil {
		err = accept()
	}
	switch {
	case errors.Is(err, io.EOF):
		return gofer.ExitGateClosed
	case err != nil:
		fmt.Fprintf(os.Stderr, "gofer: %v\n", err)
		return gofer.ExitFailed
	}
	debug.SetGCPercent(percent)
	return p.Main(args)
}
