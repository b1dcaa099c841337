// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/fsys"
)

// The simulated file system answers as the kernel does: what the store is shown in a
// simulation is what it would be shown on a host.
func TestFilesAgree(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c"}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		top, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(seed, "")
		h.runs(&task{p: &program{}, loop: true, turn: make(chan struct{})})
		h.rng = rand.New(never{})
		kernels, simulated := []fsys.Dir{fsys.Of(top)}, []fsys.Dir{&dir{h: h, n: h.state}}
		for step := range 150 {
			at, to, op := rng.IntN(len(kernels)), rng.IntN(len(kernels)), rng.IntN(9)
			name, as := names[rng.IntN(3)], names[rng.IntN(3)]
			do := func(dirs []fsys.Dir) (string, fsys.Dir, error) { return operate(op, dirs[at], dirs[to], name, as) }
			want, sub, werr := do(kernels)
			got, subSim, gerr := do(simulated)
			if got != want || errno(gerr) != errno(werr) {
				t.Fatalf("seed %d, step %d: operation %d on %s and %s: %q, %v; the kernel says %q, %v", seed, step, op, name, as, got, gerr, want, werr)
			}
			if sub != nil && len(kernels) < 4 {
				kernels, simulated = append(kernels, sub), append(simulated, subSim)
			} else if sub != nil {
				sub.Close()
			}
		}
		for _, d := range kernels {
			d.Close()
		}
	}
}

// never is a source of chance that lets nobody wait.
type never struct{}

func (never) Uint64() uint64 { return 0x4123456789abcdef }

func errno(err error) unix.Errno {
	var e unix.Errno
	errors.As(err, &e)
	return e
}

// operate makes one call, and says what came of it.
func operate(op int, d, to fsys.Dir, name, as string) (string, fsys.Dir, error) {
	read := func() (string, error) {
		f, err := d.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		return string(b), err
	}
	switch op {
	case 0, 1:
		f, err := d.Create(name, 0o600)
		if err != nil {
			return "", nil, err
		}
		_, err = f.Write([]byte(name + as))
		return "", nil, errors.Join(err, f.Lock(), f.Sync(), f.Close())
	case 2:
		return "", nil, d.Mkdir(name, 0o700)
	case 3:
		sub, err := d.OpenDir(name)
		return "", sub, err
	case 4:
		return "", nil, d.Rename(name, d, as, 0)
	case 5:
		return "", nil, d.Unlink(name)
	case 6:
		st, err := d.Stat(name)
		return string(rune('0' + st.Mode>>12)), nil, err
	case 7:
		names, err := d.Names(0)
		slices.Sort(names)
		out := ""
		for _, n := range names {
			out += n + " "
		}
		return out, nil, err
	}
	s, err := read()
	return s, nil, err
}
