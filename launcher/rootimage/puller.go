// SPDX-License-Identifier: Apache-2.0

package rootimage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/proc"
)

// Puller fetches images for the reconcile loop, each in a process of its own: what
// strangers have written is not parsed in the daemon. A pull that takes all memory or
// crashes is a pull that failed.
type Puller struct {
	Program *companion.Program
	// State is the state directory.
	State string
	// Registries is the file that says how registries are spoken to, "" for
	// image.RegistriesPath.
	Registries string
	// Policy is what the host policy allows now: where local references may lead.
	Policy func() (*hostpolicy.Policy, error)
	// Silence and Grace are how long a pull may say nothing, and how long it has to end
	// when it is cancelled: MaxSilence and MaxGrace if they are 0.
	Silence, Grace time.Duration
}

// Bounds of a pull's process. It tells how far it is every image.ReportEvery at least.
const (
	MaxSilence = 12 * image.ReportEvery
	MaxGrace   = 2 * time.Second
	niceness   = 10
	// oomScore has the kernel take a pull before any sandbox.
	oomScore = 500
	mostLine = 64 << 10
)

// Pull implements reconcile.Puller.
func (p Puller) Pull(ctx context.Context, r imageref.PullRequest, report func(operation.PullStep)) (digest string, err error) {
	var out image.Report
	beneath, err := p.beneath(r.Ref)
	if err == nil {
		out, err = p.run(ctx, r, beneath, func(s image.Step) { report(operation.PullStep{Text: describe(s), Local: s.Phase == image.Merging}) })
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("pull %s: %w", r.Ref, err)
	case out.Code == image.CodeMissing:
		return "", &missingError{errors.New(out.Error)} // it says of which image
	case out.Code == image.CodeRefused:
		return "", operation.Precondition(errors.New(out.Error))
	case out.Error != "":
		return "", errors.New(out.Error)
	case imageref.CheckDigest(out.Digest) != nil:
		return "", fmt.Errorf("pull %s: %s gave %q instead of a digest", r.Ref, companion.ImageName, out.Digest)
	case r.Digest != "" && out.Digest != r.Digest && !strings.HasSuffix(r.Ref, "@"+r.Digest):
		return "", operation.Precondition(fmt.Errorf("pull %s: it has the digest %s, expected %s", r.Ref, out.Digest, r.Digest))
	}
	return out.Digest, nil
}

// beneath is the path of the policy that a local reference is opened below, "" for one
// that names no path of the host. The program opens it, and not the daemon: its
// filesystem may not answer.
func (p Puller) beneath(ref string) (string, error) {
	r, err := imageref.Parse(ref)
	if err != nil || r.Kind != imageref.Layout && r.Kind != imageref.Archive {
		return "", nil // what is wrong with it the program says
	}
	policy, err := p.Policy()
	if err != nil {
		return "", err
	}
	return policy.AllowedRoot(hostpolicy.ImagePath, r.Path, false)
}

var errSilent = errors.New("it was killed: it had reported nothing for too long")

// run runs the program, and returns the last that it said.
func (p Puller) run(ctx context.Context, r imageref.PullRequest, beneath string, tell func(image.Step)) (image.Report, error) {
	program, _, err := p.Program.Open(ctx)
	if err != nil {
		return image.Report{}, err
	}
	defer program.Close()
	// The program ends when nobody has the other end open: when it is cancelled, and
	// when the daemon is killed. PR_SET_PDEATHSIG would end it with a thread.
	stdin, ours, err := proc.Pipe()
	if err != nil {
		return image.Report{}, err
	}
	defer stdin.Close()
	defer ours.Close()
	life, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(nil)
	defer context.AfterFunc(ctx, func() {
		ours.Close()
		time.AfterFunc(cmp.Or(p.Grace, MaxGrace), func() { kill(context.Cause(ctx)) })
	})()
	silence := cmp.Or(p.Silence, MaxSilence)
	watchdog := time.AfterFunc(silence, func() { kill(errSilent) })
	defer watchdog.Stop()

	out := &reports{tell: func(s image.Step) { watchdog.Reset(silence); tell(s) }, bad: kill}
	last := &head{}
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", proc.FirstDonated), image.PullVerb, p.State, string(r.Policy), r.Ref, beneath, p.Registries)
	cmd.Args[0] = companion.ImageName
	cmd.ExtraFiles = []*os.File{program}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, last
	err = runNice(life, cmd)
	switch cause := context.Cause(life); {
	case ctx.Err() != nil:
		return image.Report{}, context.Cause(ctx)
	case cause != nil:
		return image.Report{}, fmt.Errorf("%s: %w", companion.ImageName, cause)
	case out.result.Error != "" || err == nil && out.result.Digest != "":
		return out.result, nil
	case err == nil:
		err = errors.New("it ended without a result")
	}
	return image.Report{}, fmt.Errorf("%s: %w: %s", companion.ImageName, err, cmp.Or(untrusted.Line(last.String(), 300), "it said nothing"))
}

// runNice runs a command with less priority than the sandboxes. A child has that of the
// thread that starts it, which ends with this goroutine.
func runNice(ctx context.Context, cmd *exec.Cmd) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil {
			done <- fmt.Errorf("lower the priority: %w", err)
			return
		}
		score := oomScore
		done <- proc.RunGroup(ctx, cmd, &score)
	}()
	return <-done
}

// reports takes what the program prints: a line of JSON for each report. What is no
// report ends the program.
type reports struct {
	tell   func(image.Step)
	bad    func(error)
	buffer []byte
	result image.Report
}

// Write implements io.Writer.
func (r *reports) Write(b []byte) (int, error) {
	r.buffer = append(r.buffer, b...)
	for {
		line, rest, found := bytes.Cut(r.buffer, []byte("\n"))
		if !found {
			break
		}
		if err := r.take(line); err != nil {
			r.bad(err)
			return 0, err
		}
		r.buffer = rest
	}
	if len(r.buffer) > mostLine {
		err := errors.New("a line of its reports has no end")
		r.bad(err)
		return 0, err
	}
	return len(b), nil
}

func (r *reports) take(line []byte) error {
	var next image.Report
	if err := json.Unmarshal(line, &next); err != nil {
		return fmt.Errorf("it printed %q, expected a report", untrusted.Line(string(line), 100))
	}
	switch {
	case r.result != (image.Report{}):
		return errors.New("it printed something after its result")
	case next.Digest != "" || next.Error != "":
		next.Error = untrusted.Line(next.Error, 1000)
		r.result = next
	case next.Step != nil:
		r.tell(*next.Step)
	default:
		return errors.New("it printed an empty report")
	}
	return nil
}

// head keeps the beginning of what was written: the reason of a crash comes first.
type head struct{ bytes.Buffer }

// Write implements io.Writer.
func (t *head) Write(b []byte) (int, error) {
	_, err := t.Buffer.Write(b[:min(len(b), max(0, 4096-t.Len()))])
	return len(b), err
}

// ReadFrom hides that of the buffer, which has no bound.
func (t *head) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{t}, r)
}

// missingError says that there is no such image.
type missingError struct{ error }

func (e *missingError) Unwrap() error { return e.error }

// Is says so to reconcile.
func (e *missingError) Is(target error) bool { return target == operation.ErrImageNotFound }

// describe says how far a pull is.
func describe(s image.Step) string {
	if s.Total <= 0 {
		return string(s.Phase)
	}
	return fmt.Sprintf("%s %d %%", s.Phase, min(max(s.Done, 0), s.Total)*100/s.Total)
}
