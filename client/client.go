// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sandboxctl.dev/client/protocol"
)

// DefaultSocket is where the daemon of a host listens.
const DefaultSocket = protocol.DefaultSocket

// Client asks one daemon. It holds no connection and nothing else that must be closed, goes on
// with the next daemon when one is restarted, and may be used by many goroutines at once.
type Client struct{ path string }

// Dial returns a client of the daemon that listens on the socket of a path, if it does, and if
// this process may ask it.
func Dial(path string) (*Client, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find socket: %w", err)
	}
	c := &Client{path}
	return c, c.hello()
}

// Options say what to run, and in which sandbox. What is not set has the strictest value there
// is: no network, no volumes, and the default limits of the host policy.
type Options struct {
	// The root of the sandbox is an Image (see spec.root.image.ref of a manifest), a directory of
	// the host, or, without both, a read-only view of the host's programs. What is written there is
	// in memory, and gone with the sandbox.
	Image   string
	RootDir string

	// Command and its arguments. Neither they nor Env are in any file.
	Command []string
	// Env are NAME=VALUE, added to the environment of the sandbox.
	Env []string
	// Dir is the directory in the sandbox that the command runs in.
	Dir string

	// Stdin is read until it ends or the command does; nil is no input. Run does not wait for a
	// Read that is under way when the command has ended.
	Stdin io.Reader
	// Stdout and Stderr get what the command writes; nil drops it. If they are equal, at most one
	// goroutine calls Write at a time. When a Write fails, the command can't write there any more,
	// and Run returns that error when it has ended.
	Stdout, Stderr io.Writer

	// Memory is how much the sandbox may use, as "256Mi", and CPU how many processors, as "500m".
	Memory, CPU string
	// Timeout ends the command after this time, the start of the sandbox included; 0 is none but
	// that of the host policy.
	Timeout time.Duration
	// Network is "none", "host" or the name of a network of sandboxes; "" is "none".
	Network string
	// Egress is what may be reached on the network, as entries of spec.network.egress.allow of a
	// manifest; nothing else is allowed. Without a Network it is that of the name "default".
	Egress []string
	// Volumes are SOURCE:PATH or SOURCE:PATH:ro, with a path of the host (one that has a slash) or
	// the name of a volume as SOURCE.
	Volumes []string
	// Name is that of the sandbox, by default one that nobody has.
	Name string
	// Labels are those of the sandbox.
	Labels map[string]string
}

// Run runs a command in a sandbox that is made for it, and returns its exit code: 128+N if signal
// N ended it. It returns when the sandbox is gone, or shortly after ctx is cancelled; then the
// daemon removes the sandbox.
func (c *Client) Run(ctx context.Context, o Options) (code int, err error) {
	s := &protocol.Sandbox{
		Image: o.Image, RootDir: o.RootDir, Memory: o.Memory, CPU: o.CPU, Network: o.Network, Egress: o.Egress, Labels: o.Labels,
	}
	// A path is one of this process, not of the daemon.
	if o.RootDir != "" {
		if s.RootDir, err = filepath.Abs(o.RootDir); err != nil {
			return 0, fmt.Errorf("find the root: %w", err)
		}
	}
	for _, v := range o.Volumes {
		if source, rest, _ := strings.Cut(v, ":"); strings.Contains(source, "/") {
			if source, err = filepath.Abs(source); err != nil {
				return 0, fmt.Errorf("find a volume: %w", err)
			}
			v = source + ":" + rest
		}
		s.Volumes = append(s.Volumes, v)
	}
	if err := checkText([]string{s.Image, s.RootDir, s.Memory, s.CPU, s.Network}, s.Volumes, s.Egress, slices.Collect(maps.Keys(s.Labels)), slices.Collect(maps.Values(s.Labels))); err != nil {
		return 0, err
	}
	r := &protocol.Request{Op: protocol.OpRun, Name: o.Name, Sandbox: s, Timeout: o.Timeout}
	return c.command(ctx, r, &ExecOptions{Command: o.Command, Env: o.Env, Dir: o.Dir, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr})
}

// ExecOptions say what to run in a sandbox that is there. The fields are those of Options.
type ExecOptions struct {
	Command        []string
	Env            []string
	Dir            string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Timeout        time.Duration
}

// Exec runs one more command in a sandbox that runs, beside the one that it is for. Others than
// root may do so in sandboxes that Run has made for the same user. What the command leaves in the
// background stays until the sandbox ends.
func (c *Client) Exec(ctx context.Context, name string, o ExecOptions) (code int, err error) {
	return c.command(ctx, &protocol.Request{Op: protocol.OpExec, Name: name, Timeout: o.Timeout}, &o)
}

// Sandbox is what is known of a sandbox.
type Sandbox struct {
	Name string
	// Phase is one word, as in `sandboxctl get`; Message says why.
	Phase   string
	Message string
	Labels  map[string]string
}

// List are the sandboxes that this process may know of, by name: for root all, for others those
// that Run has made for the same user.
func (c *Client) List(ctx context.Context) ([]Sandbox, error) {
	return c.list(ctx, "")
}

// Get is one of those of List, or ErrNotFound.
func (c *Client) Get(ctx context.Context, name string) (*Sandbox, error) {
	list, err := c.list(ctx, name)
	if err == nil && len(list) != 1 {
		err = fromDaemon(&protocol.Error{Kind: protocol.KindNotFound, Message: fmt.Sprintf("no sandbox %q", name)})
	}
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

func (c *Client) list(ctx context.Context, name string) ([]Sandbox, error) {
	r, err := c.ask(ctx, &protocol.Request{Op: protocol.OpList, Name: name})
	if err != nil {
		return nil, err
	}
	out := make([]Sandbox, len(r.Sandboxes))
	for i, s := range r.Sandboxes {
		out[i] = Sandbox(s)
	}
	return out, nil
}

// Remove ends a sandbox that Run has made, and returns when it is gone. Its Run returns ErrEnded.
// Others than root can remove those of the same user.
func (c *Client) Remove(ctx context.Context, name string) error {
	_, err := c.ask(ctx, &protocol.Request{Op: protocol.OpRemove, Name: name})
	return err
}

// checkText refuses what would arrive as another text: messages are JSON.
func checkText(texts ...[]string) error {
	for _, list := range texts {
		for _, s := range list {
			if !utf8.ValidString(s) {
				return fromDaemon(&protocol.Error{Kind: protocol.KindRefused, Message: fmt.Sprintf("%q is not UTF-8, and a request is; only Stdin may be anything", s)})
			}
		}
	}
	return nil
}
