// SPDX-License-Identifier: Apache-2.0

// Package client runs commands in gVisor sandboxes of their own, for programs: what `sandboxctl
// run` is for people. A service that runs code of strangers makes a Client once, and calls Run
// for each request:
//
//	c, err := client.Dial(client.DefaultSocket)
//	…
//	code, err := c.Run(ctx, client.Options{
//		Command: []string{"python3", "-c", code},
//		Stdout:  &out,
//		Memory:  "256Mi",
//		Timeout: 10 * time.Second,
//	})
//
// The daemon of sandboxctl makes the sandbox, and removes it when the command has ended. It does
// the same when the context is cancelled, or when this process has ended, however it has: nothing
// is left behind. The command gets pipes, and never an open file of this process.
//
// Who may use the socket, and what for, is decided by the daemon and the host policy: root may ask
// for whatever a manifest may ask for; members of the group that `clients.group` names for less.
//
// Errors are of the kinds that the variables Err… name; test for them with errors.Is.
package client
