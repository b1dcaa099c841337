// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// A warm sentry has booted a kernel before it has a sandbox. What it runs is launcher/pause,
// beside which it starts an application as a second container. On its gate, a socket that
// keeps messages apart, it says the configuration of its kernel when that runs; it is sent a
// Claim, and answers; and then waits for GateOpen as any other.

const (
	// FlagWarm has a sentry boot its kernel before its gate is open.
	FlagWarm = "warm"
	// PauseContainer is what a warm sentry calls its first container. No sandbox can be called
	// so.
	PauseContainer = "sandboxctl:pause"
	// NumbersSink writes Numbers and closes the socket.
	NumbersSink = "sandboxctl-numbers"
	// MaxClaim bounds the message that says what a warm sentry becomes.
	MaxClaim = 128 << 10
	// MaxConf bounds what it says of its configuration.
	MaxConf = 64 << 10
)

// Numbers are the numbers of threads, processes and groups of processes as the sandbox sees
// them, by those that gVisor tells. It is empty where both are the same.
type Numbers map[int32]int32

// Claim is what a warm sentry becomes.
type Claim struct {
	// Args are its command line from now on.
	Args []string
	// Hostname and Domainname are those of the sandbox.
	Hostname, Domainname string
	// Environment is that of the application. It is here so that nothing of it is logged.
	Environment []string
}

// Encode returns the message. It is an error if it is too long, or the command line is.
func (c *Claim) Encode() ([]byte, error) {
	if why := Fits(c.Args, 0); why != "" {
		return nil, errors.New(why)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode claim: %w", err)
	}
	if len(b) > MaxClaim {
		return nil, fmt.Errorf("its command line and environment have %d bytes, a warm sentry has room for %d", len(b), MaxClaim)
	}
	return b, nil
}

// SendClaim sends what Encode returns, and never waits.
func SendClaim(gate *os.File, claim []byte) error {
	for {
		err := syscall.Sendmsg(int(gate.Fd()), claim, nil, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// ReadConf reads the configuration of the kernel, which is there.
func ReadConf(gate *os.File) (json.RawMessage, error) {
	b := make([]byte, MaxConf+1)
	n, _, _, _, err := syscall.Recvmsg(int(gate.Fd()), b, nil, syscall.MSG_DONTWAIT)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read configuration: %w", err)
	case n == 0:
		return nil, io.ErrUnexpectedEOF
	case n > MaxConf || !json.Valid(b[:n]):
		return nil, errors.New("read configuration: a warm sentry says something else")
	}
	return b[:n:n], nil
}

// DecodeClaim reads the message of SendClaim.
func DecodeClaim(b []byte) (*Claim, error) {
	var c Claim
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	if len(c.Args) == 0 {
		return nil, errors.New("read claim: no command line")
	}
	return &c, nil
}

// Taken is what a warm sentry answers to a claim.
func Taken() []byte { return []byte{taken} }
