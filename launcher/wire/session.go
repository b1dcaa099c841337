// SPDX-License-Identifier: Apache-2.0

package wire

// MethodSession opens a session: a stream socket travels beside it, and what the
// client starts ends when the client's end of that socket is closed, however the
// client ended. gVisor calls this a trace session; ours has a sink of the sentry
// binary's own and traces nothing.
const MethodSession = "containerManager.CreateTraceSession"

// Names of the sinks in the sentry binary.
const (
	// SessionSink ends a command with the connection of its client. The client
	// writes the pid of the command, in decimal and with a newline.
	SessionSink = "sandboxctl-session"
	// StatesSink writes a States and closes the socket.
	StatesSink = "sandboxctl-states"
	// EnvironmentSink writes the environment that the application was started with, a
	// list of NAME=VALUE, and closes the socket. Only the sentry has all of it.
	EnvironmentSink = "sandboxctl-environment"
	// ForwardSink connects the socket with a port of the sandbox: see Forward.
	ForwardSink = "sandboxctl-forward"
	// QuietSink ends what the sentry does for other clients beside commands, and lets
	// nothing of it begin as long as the socket is open. The client reads a line, which
	// is empty when all has ended.
	QuietSink = "sandboxctl-quiet"
)

// SessionArgs is the argument of MethodSession (runsc/boot.CreateTraceSessionArgs).
type SessionArgs struct {
	Config SessionConfig
	// Force replaces the session of an earlier client, which keeps running.
	Force bool
}

// SessionConfig names one sink.
type SessionConfig struct {
	Name  string `json:"name"`
	Sinks []Sink `json:"sinks"`
}

// Sink is what receives the socket.
type Sink struct {
	Name   string         `json:"name"`
	Config map[string]any `json:"config,omitempty"`
}

// Session is the argument that has a sink receive the socket.
func Session(sink string) SessionArgs {
	// gVisor has one session, of this name.
	return SessionArgs{Config: SessionConfig{Name: "Default", Sinks: []Sink{{Name: sink}}}, Force: true}
}

// KeyPort is the one of Forward in the configuration of its sink.
const KeyPort = "port"

// Forward is the argument that has the sentry connect the socket with a port of the
// sandbox. The client reads a line, which is empty if that was done; what follows are the
// bytes of the connection. Port 0 only asks whether it can be done at all.
func Forward(port uint16) SessionArgs {
	s := Session(ForwardSink)
	s.Config.Sinks[0].Config = map[string]any{KeyPort: port}
	return s
}

// Lines that clients have words of their own for.
const (
	ForwardRefused     = "connection refused"
	ForwardHostNetwork = "the sandbox is on the network of the host"
)

// States are the states of the processes of a sandbox by pid, each one letter as
// in /proc/PID/stat.
type States map[int32]string
