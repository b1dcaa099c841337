// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is a system call of Write, told from others of its kind by what its
// first argument is.
type step struct {
	nr uintptr
	on on
}

type on int

const (
	anything on = iota
	theDirectory
	theFile
)

// steps are those of a Write that replaces a file, in order. new says what is
// there when Write ends at the step: the old content or the new.
var steps = map[string]struct {
	step
	new bool
}{
	"1 create":             {step: step{unix.SYS_OPENAT, theDirectory}},
	"2 set the mode":       {step: step{unix.SYS_FCHMOD, anything}},
	"3 sync the file":      {step: step{unix.SYS_FSYNC, theFile}},
	"4 rename":             {step: step{unix.SYS_RENAMEAT2, anything}},
	"5 sync the directory": {step: step{unix.SYS_FSYNC, theDirectory}, new: true},
}

// onThread runs f on a thread that ends with it.
func onThread(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

// breakStep makes a step on the directory dir have another outcome, for this
// thread: action is a SECCOMP_RET.
func breakStep(s step, dir int, action uint32) error {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		// Offsets in struct seccomp_data.
		number, firstArg = 0, 16
	)
	first := unix.SockFilter{Code: equal, K: uint32(dir)}
	switch s.on {
	case theDirectory:
		first.Jf = 1
	case theFile:
		first.Jt = 1
	case anything:
	}
	prog := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: uint32(s.nr), Jf: 3},
		{Code: load, K: firstArg},
		first,
		{Code: ret, K: action},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	return nil
}

// Whatever step fails: it is told, the old content is there until the rename,
// nothing else is left.
func TestFailingStep(t *testing.T) {
	t.Parallel()
	for name, s := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, dir := tempDir(t)
			must(t, Write(dir, "f", []byte("old"), 0o600))
			fd := int(dir.Fd())
			onThread(t, func() {
				if err := breakStep(s.step, fd, unix.SECCOMP_RET_ERRNO|uint32(unix.EIO)); err != nil {
					t.Error(err)
					return
				}
				if err := Write(dir, "f", []byte("new"), 0o600); !errors.Is(err, unix.EIO) {
					t.Errorf("%v, expected EIO", err)
				}
			})
			want := "old"
			if s.new {
				want = "new"
			}
			if got := content(t, dir, "f"); got != want {
				t.Errorf("it is %q, expected %q", got, want)
			}
			expectNames(t, dir, "f")
			must(t, Write(dir, "f", []byte("later"), 0o600))
		})
	}
}

// A removal is on disk, or an error.
func TestRemoveSyncs(t *testing.T) {
	t.Parallel()
	_, dir := tempDir(t)
	must(t, Write(dir, "f", nil, 0o600))
	fd := int(dir.Fd())
	onThread(t, func() {
		if err := breakStep(step{unix.SYS_FSYNC, theDirectory}, fd, unix.SECCOMP_RET_ERRNO|uint32(unix.EIO)); err != nil {
			t.Error(err)
			return
		}
		if err := Remove(dir, "f"); !errors.Is(err, unix.EIO) {
			t.Errorf("%v, expected EIO", err)
		}
	})
}

// A directory that was made is on disk, or an error; one that was there costs no
// sync.
func TestMkdirAllSyncs(t *testing.T) {
	t.Parallel()
	top, _ := tempDir(t)
	onThread(t, func() {
		if err := breakStep(step{unix.SYS_FSYNC, anything}, -1, unix.SECCOMP_RET_ERRNO|uint32(unix.EIO)); err != nil {
			t.Error(err)
			return
		}
		if err := MkdirAll(filepath.Join(top, "a", "b"), 0o700); !errors.Is(err, unix.EIO) {
			t.Errorf("%v, expected EIO", err)
		}
		if err := MkdirAll(filepath.Join(top, "a", "b"), 0o700); err != nil {
			t.Error(err)
		}
	})
}

// crashEnv tells the test binary to die at a step of a Write: NUMBER ON DIR.
const crashEnv = "ATOMICFILE_TEST_CRASH"

func TestMain(m *testing.M) {
	if v := os.Getenv(crashEnv); v != "" {
		fmt.Fprintln(os.Stderr, crash(strings.SplitN(v, " ", 3)))
		os.Exit(1) // it should not have lived
	}
	os.Exit(m.Run())
}

func crash(args []string) error {
	nr, err1 := strconv.Atoi(args[0])
	what, err2 := strconv.Atoi(args[1])
	dir, err3 := os.Open(args[2])
	// The kernel reports such a death as a crash; no dump of it is wanted.
	err4 := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := breakStep(step{uintptr(nr), on(what)}, int(dir.Fd()), unix.SECCOMP_RET_KILL_PROCESS); err != nil {
		return err
	}
	return fmt.Errorf("alive: %v", Write(dir, "f", []byte("new"), 0o600))
}

// A process killed at any step leaves the old content or the new and at most a
// temporary, which is in nobody's way and is swept.
func TestCrash(t *testing.T) {
	t.Parallel()
	all := map[string]step{"write": {unix.SYS_WRITE, theFile}}
	for name, s := range steps {
		all[name] = s.step
	}
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, dir := tempDir(t)
			must(t, Write(dir, "f", []byte("old"), 0o600))
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s", crashEnv, s.nr, s.on, p))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
				t.Fatalf("it was to be killed at the step: %v\n%s", err, out)
			}
			want := "old"
			if steps[name].new {
				want = "new"
			}
			if got := content(t, dir, "f"); got != want {
				t.Errorf("it is %q, expected %q", got, want)
			}
			var temps int
			for _, n := range names(t, dir) {
				if strings.HasPrefix(n, TempPrefix) {
					temps++
					if info, err := os.Stat(filepath.Join(p, n)); err != nil || info.Mode()&fs.ModeType != 0 {
						t.Errorf("%s: %v %v", n, info, err)
					}
				}
			}
			if temps > 1 {
				t.Errorf("%d temporaries are left", temps)
			}
			must(t, Write(dir, "f", []byte("later"), 0o600))
			sweepAll(t, dir)
			expectNames(t, dir, "f")
			if content(t, dir, "f") != "later" {
				t.Error("the next write is lost")
			}
		})
	}
}
