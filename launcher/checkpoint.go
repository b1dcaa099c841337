// SPDX-License-Identifier: Apache-2.0

package launcher

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
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

// Files of a checkpoint. The description is written last: a directory without
// it holds nothing that could be restored.
const (
	checkpointState = "state.img"
	checkpointInfo  = "checkpoint.json"
)

// checkpointVersion is that of the layout and of the description.
const checkpointVersion = 1

// maxCheckpointInfo bounds the description, which holds a spec.
const maxCheckpointInfo = 4 << 20

// CheckpointInfo describes a checkpoint: all that decides whether it can be
// restored, known before anything is tried.
type CheckpointInfo struct {
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
	// Init is that of the record.
	Init string `json:"init,omitempty"`
	// Spec is what the sentry was told.
	Spec *specs.Spec `json:"spec"`
	// StateBytes is the size of the state file.
	StateBytes int64 `json:"stateBytes"`
}

// Checkpoint writes the state of a running sandbox or container into a
// directory, which is made if need be and must not hold a checkpoint. With leave
// it goes on, else it ends. On error it goes on too, and nothing is left in the
// directory. ErrNotRunning if it does not run.
func Checkpoint(ctx context.Context, store *actual.Store, name, path string, leave bool) (*CheckpointInfo, error) {
	info, err := checkpoint(ctx, store, name, path, leave)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", name, err)
	}
	return info, nil
}

func checkpoint(ctx context.Context, store *actual.Store, name, path string, leave bool) (info *CheckpointInfo, err error) {
	c, rec, err := sentry.Connect(ctx, store, name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if rec.Phase != actual.PhaseRunning {
		return nil, fmt.Errorf("it is %s, expected Running", rec.Phase)
	}
	st, err := setupOf(store, rec)
	if err != nil {
		return nil, err
	}
	if info, err = describe(rec, st); err != nil {
		return nil, err
	}
	dir, err := checkpointDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	state, err := createBeneath(dir, checkpointState)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, unlink(dir, checkpointState))
		}
	}()
	if err := c.Checkpoint(ctx, leave, state); err != nil {
		return nil, err
	}
	if info.StateBytes, err = syncState(state); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode description: %w", err)
	}
	if err := atomicfile.Create(dir, checkpointInfo, append(b, '\n'), 0o600); err != nil {
		return nil, err
	}
	return info, nil
}

// checkpointDir opens the directory of a new checkpoint. It is private: the
// state holds every secret of the sandbox.
func checkpointDir(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create directory: %w", err)
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	for _, name := range []string{checkpointState, checkpointInfo} {
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

func describe(rec *actual.Record, st *setup.Setup) (*CheckpointInfo, error) {
	features, err := cpuFeatures()
	if err != nil {
		return nil, err
	}
	if rec.GVisor == "" {
		return nil, errors.New("its record does not name its sentry's version")
	}
	return &CheckpointInfo{
		Version: checkpointVersion, Name: rec.Name, TakenAt: time.Now().UTC(), GVisor: rec.GVisor, Arch: runtime.GOARCH,
		CPUFeatures: features, Network: st.Network(), Overlay: st.Overlay, Mounts: st.MountConfs(), Init: rec.Init, Spec: cmp.Or(st.Described, st.Spec),
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

// checkpointImage is an open checkpoint.
type checkpointImage struct {
	info  CheckpointInfo
	state *os.File
}

func (i *checkpointImage) close() { i.state.Close() }

// timeout is how long a restore may take beyond a start.
func (i *checkpointImage) timeout() time.Duration {
	const perSecond = 16 << 20 // a slow disk
	return time.Duration(i.info.StateBytes/perSecond+1) * time.Second
}

// openCheckpoint opens the checkpoint in a directory.
func openCheckpoint(path string) (*checkpointImage, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("open checkpoint: expected an absolute path, got %q", path)
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	defer dir.Close()
	f, err := hostfs.OpenBeneath(int(dir.Fd()), checkpointInfo, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open checkpoint: %s holds none, or one that was not finished", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCheckpointInfo))
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	img := &checkpointImage{}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&img.info); err != nil {
		return nil, fmt.Errorf("read checkpoint: decode %s: %w", checkpointInfo, err)
	}
	if img.state, err = hostfs.OpenBeneath(int(dir.Fd()), checkpointState, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("open checkpoint: %s: %w", checkpointState, err)
	}
	return img, nil
}
