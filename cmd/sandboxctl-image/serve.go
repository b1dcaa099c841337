// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/layers"
	"sandboxctl.dev/launcher/image/puller"
	"sandboxctl.dev/launcher/image/source"
)

// What a pull of the daemon's may take. The largest image that the limits allow needs
// less; what is wrong with one must not take the memory of the sandboxes.
const (
	softMemory = 512 << 20
	hardMemory = 4 << 30
	// endTime is how long a pull has to end when the daemon has gone.
	endTime = 5 * time.Second
)

// pullForDaemon pulls one image, and reports on stdout. It ends when stdin does: the
// daemon is gone then, or does not want the image any more.
func pullForDaemon(args []string, o puller.Options) int {
	if len(args) != 5 {
		fmt.Fprintln(os.Stderr, image.PullVerb+" is started by the daemon, not by hand")
		return exit.Usage
	}
	if err := boundMemory(); err != nil {
		fmt.Fprintln(os.Stderr, "bound the memory:", err)
		return exit.Failure
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
		time.AfterFunc(endTime, func() { os.Exit(exit.Failure) })
	}()
	o.Beneath, o.RegistriesFile = args[3], args[4]
	out := &reporter{out: json.NewEncoder(os.Stdout), step: image.Step{Phase: image.Resolving}}
	beat := time.NewTicker(image.ReportEvery)
	defer beat.Stop()
	go func() {
		for range beat.C {
			out.again()
		}
	}()
	digest, err := pull(ctx, args[0], puller.Request{Ref: args[2], Pull: imageref.PullPolicy(args[1])}, o, out.tell)
	return out.end(digest, err)
}

// boundMemory ends this process when it takes too much memory, with the programs that it
// starts for credentials.
func boundMemory() error {
	debug.SetMemoryLimit(softMemory)
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &now); err != nil {
		return err
	}
	most := min(now.Max, hardMemory)
	return unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: most, Max: most})
}

func pull(ctx context.Context, state string, r puller.Request, o puller.Options, tell image.Progress) (digest string, err error) {
	s, err := image.OpenStore(state)
	if err != nil {
		return "", err
	}
	defer s.Close()
	img, err := puller.New(s, o).Resolve(ctx, r, tell)
	if err != nil {
		return "", err
	}
	return img.Digest, img.Close()
}

// reporter writes reports. It is used by several goroutines.
type reporter struct {
	mu    sync.Mutex
	out   *json.Encoder
	step  image.Step
	sent  time.Time
	ended bool
}

// between is how much time is between two reports of one phase.
const between = 200 * time.Millisecond

func (r *reporter) tell(s image.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := s.Phase != r.step.Phase
	if r.step = s; changed || time.Since(r.sent) >= between {
		r.send()
	}
}

// again says that the program lives.
func (r *reporter) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send()
}

func (r *reporter) send() {
	if !r.ended {
		r.sent = time.Now()
		_ = r.out.Encode(image.Report{Step: &r.step}) // who reads nothing any more closes stdin too
	}
}

// end writes the result.
func (r *reporter) end(digest string, err error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	last := image.Report{Digest: digest}
	if err != nil {
		last = image.Report{Error: err.Error()}
		last.Code = code(err)
	}
	if r.out.Encode(last) != nil || err != nil {
		return exit.Failure
	}
	return exit.OK
}

// code says what an error of a pull means for another try, "" if that may help.
func code(err error) string {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case is(image.ErrNotFound), is(source.ErrMissing):
		return image.CodeMissing
	case slices.ContainsFunc([]error{source.ErrInvalid, source.ErrPlatform, source.ErrUnauthorized, imageref.ErrInvalid, layers.ErrLimit}, is):
		return image.CodeRefused
	}
	return ""
}
