// SPDX-License-Identifier: Apache-2.0

// Command client runs its arguments in a sandbox of their own, as `sandboxctl run` does, and shows
// how a program does that.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"sandboxctl.dev/client"
)

func main() {
	code, err := run()
	switch {
	case errors.Is(err, client.ErrTimeout):
		code = 124
	case err != nil && code == 0:
		code = 125
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func run() (code int, err error) {
	c, err := client.Dial(cmp.Or(os.Getenv("SANDBOXCTL_CLIENT_SOCKET"), client.DefaultSocket))
	if err != nil {
		return 0, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return c.Run(ctx, client.Options{
		Command: os.Args[1:],
		Name:    os.Getenv("NAME"),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Memory:  "256Mi",
		CPU:     "1",
		Timeout: 30 * time.Second,
	})
}
