// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

// Files of a checkpoint. The description is written last: a directory without
// it holds nothing that could be restored.
const (
	stateFile = "state.img"
	infoFile  = "checkpoint.json"
)

// layoutVersion is that of the layout and of the description.
const layoutVersion = 1

// maxInfo bounds the description, which holds a spec.
const maxInfo = 4 << 20

// Info describes a checkpoint: all that decides whether it can be
// restored, known before anything is tried.
type Info struct {
	Version int `json:"version"`
	// Name is the sandbox or container it was taken of.
	Name    string    `json:"name"`
	TakenAt time.Time `json:"takenAt"`
	// GVisor is the version of the sentry that wrote the state; no other can
	// read it.
	GVisor string `json:"gvisor"`
	Arch   string `json:"arch"`
	// CPUFeatures are those that the processes may have found and go on using.
	CPUFeatures []string `json:"cpuFeatures"`
	// Network is gVisor's network type, Overlay and Mounts how the files are
	// reached.
	Network string `json:"network"`
	Overlay string `json:"overlay"`
	Mounts  string `json:"mounts"`
	// OverlaySize is what the manifest said of the overlay, 0 if nothing. DefaultDisk is the
	// size of what is on the disk and has none of its own. A restore keeps both.
	OverlaySize int64 `json:"overlaySize,omitempty"`
	DefaultDisk int64 `json:"defaultDisk,omitempty"`
	// Image is the digest of the image that the root is, "" if it is none.
	Image string `json:"image,omitempty"`
	// Init is that of the record.
	Init string `json:"init,omitempty"`
	// PrivateEnv says that the application had variables that are not in Spec.
	PrivateEnv bool `json:"privateEnv,omitempty"`
	// Spec is what the sentry was told.
	Spec *specs.Spec `json:"spec"`
	// StateBytes is the size of the state file.
	StateBytes int64 `json:"stateBytes"`
	// Compressed says that it is compressed. A restore finds out by itself.
	Compressed bool `json:"compressed,omitempty"`
	// Checksum is that of the state file, "" of a checkpoint that is no snapshot; ID tells a
	// snapshot from every other one that has its name.
	Checksum string `json:"checksum,omitempty"`
	ID       string `json:"id,omitempty"`
}

// Take writes the state of a running sandbox or container into a
// directory, which is made if need be and must not hold a checkpoint. With leave
// it resumes, else it ends. On error it resumes too, and nothing is left in the
// directory. ErrNotRunning if it does not run.
func Take(ctx context.Context, store *actual.Store, name, path string, leave bool) (*Info, error) {
	info, err := take(ctx, store, name, path, leave)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", name, err)
	}
	return info, nil
}

func take(ctx context.Context, store *actual.Store, name, path string, leave bool) (info *Info, err error) {
	s, err := Begin(ctx, store, name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	dir, err := newDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	state, err := CreateState(dir)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, unlink(dir, stateFile))
		}
	}()
	s.Info.Compressed = true
	if err := s.Write(ctx, leave, state); err != nil {
		return nil, err
	}
	if s.Info.StateBytes, err = syncState(state); err != nil {
		return nil, err
	}
	if err := s.Info.Put(dir); err != nil {
		return nil, err
	}
	return s.Info, nil
}

// errWarm says that nothing could be restored: the state is that of two containers.
var errWarm = errors.New("it was started with a warm sentry, and a checkpoint or snapshot of it could not be restored; set `warmKernels: 0` in the host policy, and restart it")

// Saving is a running sandbox or container whose state is about to be saved.
type Saving struct {
	// Info describes it. The size of the state, and how it is written, are for the caller to say.
	Info    *Info
	control *sentry.Control
}

// Begin connects with a running sandbox or container. ErrNotRunning if it does not run.
func Begin(ctx context.Context, store *actual.Store, name string) (*Saving, error) {
	c, rec, err := sentry.Connect(ctx, store, name)
	if err != nil {
		return nil, err
	}
	s := &Saving{control: c}
	switch {
	case rec.Phase != actual.PhaseRunning:
		err = fmt.Errorf("it is %s, expected Running", rec.Phase)
	case rec.Start != nil && rec.Start.Way == actual.WayWarm:
		err = errWarm
	}
	var st *setup.Setup
	if err == nil {
		st, err = built.Of(store, rec)
	}
	if err == nil {
		s.Info, err = describe(rec, st)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the connection.
func (s *Saving) Close() { _ = s.control.Close() } // nothing is in flight

// Write has the sentry write the state into a file, or into a pipe, and returns when all of it
// was written. With leave the sandbox resumes, else it ends. On error it resumes too.
func (s *Saving) Write(ctx context.Context, leave bool, to *os.File) error {
	return s.control.Checkpoint(ctx, leave, s.Info.Compressed, to)
}

// Put writes the description, after which there is a checkpoint.
func (c *Info) Put(dir *os.File) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode description: %w", err)
	}
	return atomicfile.Create(dir, infoFile, append(b, '\n'), 0o600)
}

// CreateState makes the file of a state in a directory that has none.
func CreateState(dir *os.File) (*os.File, error) { return createBeneath(dir, stateFile) }

// newDir opens the directory of a new checkpoint. It is private: the
// state holds every secret of the sandbox.
func newDir(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create directory: %w", err)
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	for _, name := range []string{stateFile, infoFile} {
		var st unix.Stat_t
		switch err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == nil:
			return nil, errors.Join(fmt.Errorf("%s holds a checkpoint already: %w", path, fs.ErrExist), dir.Close())
		case !errors.Is(err, unix.ENOENT):
			return nil, errors.Join(fmt.Errorf("look into %s: %w", path, err), dir.Close())
		}
	}
	return dir, nil
}

func createBeneath(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func unlink(dir *os.File, name string) error {
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// syncState makes what the sentry wrote last.
func syncState(state *os.File) (int64, error) {
	if err := state.Sync(); err != nil {
		return 0, fmt.Errorf("sync state: %w", err)
	}
	st, err := state.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at state: %w", err)
	}
	if st.Size() == 0 {
		return 0, errors.New("the sentry wrote no state")
	}
	return st.Size(), nil
}

func describe(rec *actual.Record, st *setup.Setup) (*Info, error) {
	features, err := cpuFeatures()
	if err != nil {
		return nil, err
	}
	if rec.GVisor == "" {
		return nil, errors.New("its record does not name its sentry's version")
	}
	return &Info{
		Version: layoutVersion, Name: rec.Name, TakenAt: time.Now().UTC(), GVisor: rec.GVisor, Arch: runtime.GOARCH,
		CPUFeatures: features, Network: st.Network(), Overlay: st.App().Overlay, Mounts: st.MountConfs(), Image: digestOf(st), Init: rec.App().Init,
		OverlaySize: st.App().OverlaySize, DefaultDisk: st.DefaultDisk, PrivateEnv: st.App().PrivateEnv,
		Spec: cmp.Or(st.App().Described, st.App().Spec),
	}, nil
}

// cpuFeatures are those of the first processor, by the kernel's names.
func cpuFeatures() ([]string, error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, fmt.Errorf("read processor features: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "flags", "Features":
			return strings.Fields(value), nil
		}
	}
	return nil, errors.New("read processor features: /proc/cpuinfo lists none")
}

// Image is an open checkpoint.
type Image struct {
	Info  Info
	State *os.File
}

// Close closes the state.
func (i *Image) Close() { i.State.Close() }

// Timeout is how long a restore may take beyond a start.
func (i *Image) Timeout() time.Duration {
	const perSecond = 16 << 20 // a slow disk
	return time.Duration(i.Info.StateBytes/perSecond+1) * time.Second
}

// Open opens the checkpoint in a directory.
func Open(path string) (*Image, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("open checkpoint: expected an absolute path, got %q", path)
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	defer dir.Close()
	img, err := OpenIn(dir)
	if errors.Is(err, ErrNone) {
		return nil, fmt.Errorf("open checkpoint: %s %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	return img, nil
}

// ErrNone says of a directory that there is no checkpoint in it.
var ErrNone = errors.New("holds none, or one that was not finished")

// OpenIn opens the checkpoint in a directory that is open: ErrNone if there is none.
func OpenIn(dir *os.File) (*Image, error) {
	f, err := hostfs.OpenBeneath(int(dir.Fd()), infoFile, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInfo))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", infoFile, err)
	}
	img := &Image{}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&img.Info); err != nil {
		return nil, fmt.Errorf("decode %s: %w", infoFile, err)
	}
	if img.State, err = hostfs.OpenBeneath(int(dir.Fd()), stateFile, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	return img, nil
}
