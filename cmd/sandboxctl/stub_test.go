// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/wire"
)

// This test binary is also a sentry and a gofer: real processes that follow the
// launch protocol and run nothing, and that misbehave as the name of their
// sandbox says. What they do is what gVisor never does on demand.

// Names of misbehaving sandboxes.
const (
	stubGood       = "good"
	stubDiesEarly  = "dies-early"  // after the gate
	stubNeverReady = "never-ready" // no control server
	stubDiesReady  = "dies-ready"  // when it has said that it is ready
	stubDiesStart  = "dies-start"  // instead of an answer to StartRoot
	stubSilent     = "silent"      // no answer to StartRoot
	stubGarbage    = "garbage"     // an answer that is none
	stubHuge       = "huge"        // an answer without end
	stubDrips      = "drips"       // an answer that comes a byte at a time, without end
	stubRefuses    = "refuses"     // an error for an answer
	stubStubborn   = "stubborn"    // takes no notice of signals
	stubNoGofer    = "no-gofer"    // its gofer ends at once
	stubPlants     = "plants"      // its gofer leaves traps where its logs were
)

// stub runs this process as a sentry or gofer if it was started as one.
func stub() (code int, is bool) {
	switch os.Args[0] {
	case companion.SentryName, companion.GoferName:
	default:
		return 0, false
	}
	switch {
	case len(os.Args) == 2 && os.Args[1] == "version":
		fmt.Println(wire.Handshake(os.Args[0], map[string]int{companion.SentryName: wire.Protocol, companion.GoferName: gofer.Protocol}[os.Args[0]], "stub"))
		return 0, true
	case os.Args[0] == companion.SentryName:
		return stubSentry(), true
	}
	return stubGofer(), true
}

func gate(fd int) bool {
	var b [1]byte
	f := os.NewFile(uintptr(fd), "gate")
	defer f.Close()
	n, err := f.Read(b[:])
	return err == nil && n == 1
}

func stubGofer() int {
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return gofer.ExitFailed
	}
	var cfg gofer.Config
	if err := json.NewDecoder(os.NewFile(uintptr(fd), "configuration")).Decode(&cfg); err != nil {
		return gofer.ExitFailed
	}
	if !gate(cfg.GateFD) {
		return gofer.ExitGateClosed
	}
	if os.Args[2] == stubNoGofer {
		fmt.Fprintln(os.Stderr, "gofer: no reason")
		return gofer.ExitFailed
	}
	if os.Args[2] == stubPlants {
		if err := stubTraps(&cfg); err != nil {
			fmt.Fprintln(os.Stderr, "gofer:", err)
			return gofer.ExitFailed
		}
	}
	fds := []unix.PollFd{{Fd: int32(cfg.SentryFD), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(fds, -1); n > 0 || err != unix.EINTR {
			break
		}
	}
	if _, err := unix.Write(cfg.LeftFD, []byte(cfg.Left)); err != nil {
		return gofer.ExitFailed
	}
	return gofer.ExitOK
}

// stubTraps does what a gofer that was taken over can: it has the log directory,
// the file of its own words and its exit record.
func stubTraps(cfg *gofer.Config) error {
	at := "/proc/self/fd/" + strconv.Itoa(cfg.Logs.DirFD)
	for _, n := range []string{"gofer.log", cfg.Logs.AppName, cfg.Logs.SentryName} {
		if err := errors.Join(os.RemoveAll(at+"/"+n), unix.Mkfifo(at+"/"+n, 0o600)); err != nil {
			return err
		}
	}
	deep, err := unix.Openat(cfg.Logs.DirFD, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; err == nil && i < 3000; i++ {
		if err = unix.Mkdirat(deep, "d", 0o700); err == nil {
			var next int
			next, err = unix.Openat(deep, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			unix.Close(deep)
			deep = next
		}
	}
	return errors.Join(err, os.Symlink("/", at+"/root"), os.Symlink("/dev/zero", at+"/zero"), unix.Mkfifo(at+"/a\n\x1b[2J", 0o600),
		unix.Ftruncate(cfg.LeftFD, 1<<40), unix.Fchmod(cfg.LeftFD, 0o666), unix.Ftruncate(2, 1<<40))
}

// stubFlags are the flags of a boot process that a stub needs.
func stubFlags() map[string]string {
	out := map[string]string{}
	for _, a := range os.Args[1:] {
		k, v, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		out[k] = v
	}
	out["name"] = os.Args[len(os.Args)-1]
	return out
}

func stubSentry() int {
	f := stubFlags()
	num := func(name string) int {
		n, err := strconv.Atoi(f[name])
		if err != nil {
			panic(err)
		}
		return n
	}
	if !gate(num(wire.FlagGateFD)) {
		return wire.ExitGateClosed
	}
	switch f["name"] {
	case stubDiesEarly:
		fmt.Fprintln(os.Stderr, "boot sentry: no reason")
		return wire.ExitBootFailed
	case stubNeverReady, stubNoGofer:
		for { // select {} ends a program that was built without cgo
			_ = unix.Pause()
		}
	}
	if err := unix.Listen(num("controller-fd"), 8); err != nil {
		panic(err)
	}
	if _, err := unix.Write(num("start-sync-fd"), []byte{1}); err != nil {
		panic(err)
	}
	if f["name"] == stubDiesReady {
		return wire.ExitBootFailed
	}
	l, err := net.FileListener(os.NewFile(uintptr(num("controller-fd")), "control"))
	if err != nil {
		panic(err)
	}
	var once sync.Once
	leave := func(status uint32) {
		once.Do(func() {
			attempt, err := strconv.ParseInt(f[wire.FlagAttempt], 10, 64)
			if err != nil {
				panic(err)
			}
			b, err := actual.EncodeExit(actual.ExitRecord{UID: f[wire.FlagUID], Attempt: attempt, Container: f[wire.FlagContainer], Status: status, At: time.Now()})
			if err != nil {
				panic(err)
			}
			if _, err := unix.Write(num(wire.FlagExitFD), b); err != nil {
				panic(err)
			}
			unix.Exit(wire.ExitOK) // os.Exit waits a second for the race detector
		})
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return wire.ExitBootFailed
		}
		go stubServe(c, f["name"], leave, func() {
			// As the init process does.
			if fd, err := strconv.Atoi(strings.TrimSuffix(f["pass-fd"], ":3")); err == nil {
				_, _ = unix.Write(fd, []byte{6})
				_ = unix.Close(fd)
			}
		})
	}
}

func stubServe(c net.Conn, mode string, leave func(uint32), started func()) {
	defer c.Close()
	dec := json.NewDecoder(c)
	for {
		var req struct {
			Method string          `json:"method"`
			Arg    json.RawMessage `json:"arg"`
		}
		if dec.Decode(&req) != nil {
			return
		}
		if req.Method == wire.MethodStartRoot {
			switch mode {
			case stubDiesStart:
				unix.Exit(wire.ExitBootFailed)
			case stubSilent:
				select {}
			case stubGarbage:
				_, _ = io.WriteString(c, "]]]")
				continue
			case stubDrips:
				for {
					if _, err := io.WriteString(c, " "); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			case stubHuge:
				_, _ = io.WriteString(c, `{"err":"`)
				for {
					if _, err := c.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			case stubRefuses:
				_, _ = io.WriteString(c, `{"success":false,"err":"no \u001b[31msuch file"}`)
				continue
			}
			started()
		}
		_, _ = io.WriteString(c, `{"success":true,"err":"","result":null}`)
		if req.Method == wire.MethodSignal && mode != stubStubborn {
			leave(uint32(unix.SIGTERM))
		}
	}
}
