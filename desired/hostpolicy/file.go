// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
)

// File is the file of the host policy. It is looked at again whenever the
// policy is asked for. It is safe for concurrent use.
type File struct {
	opts Options

	mu     sync.Mutex
	id     trustedfile.ID
	policy *Policy
}

// Options configure a File.
type Options struct {
	// Path of the file; it may be a symbolic link.
	Path string
	// Optional says that without the file the built-in policy counts. Otherwise
	// a file that is missing is an error: somebody meant one.
	Optional bool
	// Protected are directories and files that are never shared with a sandbox,
	// whatever the policy allows.
	Protected []string
	// Trusted, if set, are files that no sandbox may write, as they are at a Load: who writes
	// one decides whom this host believes. One Load at a time asks. An error of it is one of Load.
	Trusted func() ([]string, error)
}

// policySettle is how long a change must have lasted where the kernel does not
// tell whether somebody is writing.
const policySettle = 100 * time.Millisecond

// NewFile returns the file. Nothing is read yet.
func NewFile(opts Options) *File { return &File{opts: opts} }

// Options are what the file was made with.
func (f *File) Options() Options { return f.opts }

// Load returns the policy that the file holds now. Whatever is wrong with the
// file is an error, and then nothing may be allowed: who wrote half of a policy,
// or can write all of it, must not decide.
func (f *File) Load() (*Policy, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	trusted, err := f.trusted()
	if err != nil {
		return nil, err
	}
	file, err := trustedfile.Open(f.opts.Path)
	if f.opts.Optional && errors.Is(err, fs.ErrNotExist) && !errors.Is(err, trustedfile.ErrDangling) {
		f.policy, f.id = nil, trustedfile.ID{}
		return Default().protecting(f.protected(), trusted), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host policy: %w", err)
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read host policy %s: %w", f.opts.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("read host policy %s: expected a regular file", f.opts.Path)
	}
	id := trustedfile.IDOf(&st)
	if f.policy != nil && f.id == id {
		f.policy = f.policy.protecting(f.protected(), trusted)
		return f.policy, nil
	}
	// Half a policy may allow what the whole one does not.
	b, err := trustedfile.Read(file, &st, policySettle, yamldoc.MaxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("read host policy %s: %w", f.opts.Path, err)
	}
	p, problems := Decode(f.opts.Path, b)
	if len(problems) > 0 {
		errs := make([]error, len(problems))
		for i := range problems {
			errs[i] = errors.New(problems[i].Error())
		}
		return nil, fmt.Errorf("read host policy: %w", errors.Join(errs...))
	}
	f.policy, f.id = p.protecting(f.protected(), trusted), id
	return f.policy, nil
}

// Policy is Load for those who only judge manifests.
func (f *File) Policy() (desired.Policy, error) {
	p, err := f.Load()
	if err != nil {
		return nil, err // not a nil *Policy, which would be no policy to compare with
	}
	return p, nil
}

// protected are the directories and files that are sandboxctl's own now: a link may
// have been swapped since the policy was read.
func (f *File) protected() []string {
	return withWays(append([]string{f.opts.Path}, f.opts.Protected...))
}

// trusted are the files that no sandbox may write now.
func (f *File) trusted() ([]string, error) {
	if f.opts.Trusted == nil {
		return nil, nil
	}
	files, err := f.opts.Trusted()
	return withWays(files), err
}

// withWays are paths, and every link that leads to them.
func withWays(paths []string) (out []string) {
	for _, p := range paths {
		out = append(out, p)
		out = append(out, trustedfile.Way(p)...)
	}
	return out
}

// protecting returns the policy with other paths that are never shared, and others that are
// never written.
func (p *Policy) protecting(paths, trusted []string) *Policy {
	if slices.Equal(p.protected, paths) && slices.Equal(p.trusted, trusted) {
		return p
	}
	q := *p
	q.protected, q.trusted = paths, trusted
	// What was judged before is judged again.
	sum := sha256.Sum256([]byte(strings.Join(paths, "\x00") + "\x00\x00" + strings.Join(trusted, "\x00")))
	q.own = " " + hex.EncodeToString(sum[:4])
	return &q
}

// Decode reads a host policy as strictly as manifests are read. file is
// used in positions only. The policy is nil if there are problems.
func Decode(file string, data []byte) (*Policy, []desired.Problem) {
	chunks, bad := yamldoc.Chunks(file, data)
	switch {
	case bad != nil:
		return nil, []desired.Problem{*bad}
	case len(chunks) != 1:
		line := 1
		if len(chunks) > 1 {
			line = chunks[1].Line
		}
		return nil, []desired.Problem{{Position: desired.Position{File: file, Line: line, Column: 1}, Message: fmt.Sprintf("expected one document of kind %s, got %d", desired.PolicyKind, len(chunks))}}
	}
	d := yamldoc.Parse(file, chunks[0], Kinds.Wanted())
	if d.Parsed() {
		Kinds.Check(d)
	}
	p := new(Policy)
	if len(d.Problems()) == 0 {
		if err := d.Decode(p); err != nil {
			d.Report("", "", err.Error())
		}
	}
	if len(d.Problems()) == 0 {
		for _, e := range p.Validate() {
			d.Report(e.Field, "", e.Message)
		}
	}
	if ps := d.Problems(); len(ps) > 0 {
		yamldoc.SortProblems(ps)
		return nil, ps
	}
	p.fill()
	sum := sha256.Sum256(data)
	p.from, p.digest = file, hex.EncodeToString(sum[:])
	return p, nil
}
