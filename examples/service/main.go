// SPDX-License-Identifier: Apache-2.0

// Command service is an HTTP server that runs code of strangers: each request in a sandbox of its
// own, with limits and without a network, and with nothing left when it is answered or its client
// has gone.
//
//	curl -d '{"language": "python", "code": "print(6 * 7)"}' http://127.0.0.1:8080/run
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"sandboxctl.dev/client"
)

const (
	maxRequest = 256 << 10 // bytes of a request
	maxOutput  = 64 << 10  // bytes of each output of the code
	maxRuns    = 8         // requests at the same time
)

// request is what a stranger sends, and answer what they get.
type request struct {
	Language string `json:"language"`
	Code     string `json:"code"`
	Stdin    string `json:"stdin"`
}

type answer struct {
	ExitCode int    `json:"exitCode"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	// Error is why the code did not run to its end.
	Error string `json:"error,omitempty"`
}

// commands are what runs the code of a language, which is their last argument.
var commands = map[string][]string{
	"python": {"python3", "-c"},
	"sh":     {"sh", "-c"},
}

type service struct {
	sandboxes *client.Client
	places    chan struct{}
	memory    string
	timeout   time.Duration
}

func (s *service) run(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil {
		http.Error(w, "expected JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	command := commands[req.Language]
	if command == nil {
		http.Error(w, "language: expected python or sh", http.StatusBadRequest)
		return
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		http.Error(w, "busy; try again", http.StatusServiceUnavailable)
		return
	}
	out, errs := &bounded{}, &bounded{}
	// The context ends when the client goes: so does the code.
	code, err := s.sandboxes.Run(r.Context(), client.Options{
		Command: append(append([]string{}, command...), req.Code),
		Stdin:   strings.NewReader(req.Stdin),
		Stdout:  out,
		Stderr:  errs,
		Memory:  s.memory,
		CPU:     "1",
		Timeout: s.timeout,
		Labels:  map[string]string{"app": "service"},
	})
	a := answer{ExitCode: code, Stdout: out.String(), Stderr: errs.String()}
	status := http.StatusOK
	switch {
	case err == nil:
	case errors.Is(err, client.ErrTimeout), errors.Is(err, client.ErrOutOfMemory), errors.Is(err, errTooMuch), errors.Is(err, client.ErrCommand):
		a.Error = err.Error() // the stranger's
	case errors.Is(err, client.ErrBusy), errors.Is(err, client.ErrDaemonGone):
		status, a.Error = http.StatusServiceUnavailable, "try again"
	default: // as ErrRefused: what the host allows is not for strangers to read
		fmt.Fprintln(os.Stderr, "run:", err)
		status, a.Error = http.StatusInternalServerError, "the code could not be run"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a) // the client may be gone
}

// bounded keeps the beginning of an output. The code can't write more.
type bounded struct{ bytes.Buffer }

var errTooMuch = errors.New("the code wrote too much")

func (b *bounded) Write(p []byte) (int, error) {
	n, _ := b.Buffer.Write(p[:min(len(p), maxOutput-b.Len())]) // it never fails
	if n < len(p) {
		return n, errTooMuch
	}
	return n, nil
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve at")
	socket := flag.String("socket", client.DefaultSocket, "socket of the daemon of sandboxctl")
	memory := flag.String("memory", "256Mi", "how much memory code may use")
	timeout := flag.Duration("timeout", 10*time.Second, "how long code may run")
	flag.Parse()
	if err := serve(*listen, *socket, &service{places: make(chan struct{}, maxRuns), memory: *memory, timeout: *timeout}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(listen, socket string, s *service) (err error) {
	if s.sandboxes, err = client.Dial(socket); err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "serving at http://%s/run\n", l.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", s.run)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: s.timeout + time.Minute, MaxHeaderBytes: 16 << 10}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close() // and with it, what runs
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
