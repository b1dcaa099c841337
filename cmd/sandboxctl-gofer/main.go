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
	"fmt"
	"os"

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
