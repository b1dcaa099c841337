// SPDX-License-Identifier: Apache-2.0

// Package image keeps the images of sandboxes: one EROFS file per image, which a
// sentry maps read-only.
//
// A store is the directory "images" of the state directory. Nothing of an image is
// unpacked onto the host's file system, so that no name, link or device in a layer can
// reach anything on the host.
//
// This package finds, lists and removes images, and reads what is in them. Package puller
// makes them, in a program of its own.
package image

import (
	"fmt"
	"io"
	"os"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"
)

// Image is an image in the store. It can't be removed before it is closed.
type Image struct {
	// Ref is the reference that was resolved, empty after Find.
	Ref string
	// Digest names the image: "sha256:" and 64 hexadecimal digits.
	Digest string
	Config Config
	// Info is the rest of what is known about it.
	Info Info

	store *os.File
	hex   string
	// file is the EROFS file. The lock on it (flock, shared) keeps the image.
	file *os.File
}

// Config is what an image says about the programs in it, as in the image
// configuration of OCI.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"`
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"workingDir,omitempty"`
	StopSignal   string            `json:"stopSignal,omitempty"`
	ExposedPorts []string          `json:"exposedPorts,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
}

// Progress is told how far a pull is. Calls come one at a time.
type Progress func(Step)

// Step is a moment of a pull.
type Step struct {
	// Digest is that of the image, empty until it is known.
	Digest string
	// Phase is what is done now.
	Phase Phase
	// Done and Total are bytes. Total is 0 if it is not known.
	Done, Total int64
}

// Phase is a part of a pull.
type Phase string

// The phases, in their order.
const (
	// Resolving asks the source what the reference means.
	Resolving Phase = "resolving"
	// Waiting is for another process that pulls the same image.
	Waiting Phase = "waiting"
	// Fetching fetches layers.
	Fetching Phase = "fetching"
	// Merging writes the layers into the file of the image.
	Merging Phase = "merging"
)

// Close ends the use of the image.
func (i *Image) Close() error { return i.file.Close() }

// Open opens the EROFS file of the image for reading. Each call gives an open file of
// its own, which has no lock: a sentry that has it can't keep the image in the store.
func (i *Image) Open() (*os.File, error) {
	f, err := openTree(i.store, i.hex, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", i.Digest, err)
	}
	// It can't have been replaced: the lock keeps it.
	return f, nil
}

// ReadFile reads a regular file of the image, "etc/passwd", of limit bytes at most.
// Links are followed inside of the image, and an absolute one from its root. What is
// missing is fs.ErrNotExist.
func (i *Image) ReadFile(path string, limit int64) ([]byte, error) {
	tree, err := erofs.Open(i.file)
	if err != nil {
		return nil, fmt.Errorf("%w: image %s: %w", ErrDamaged, i.Digest, err)
	}
	f, err := tree.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s in the image is not a regular file", path)
	case st.Size() > limit:
		return nil, fmt.Errorf("%s in the image has %d bytes, at most %d are read", path, st.Size(), limit)
	}
	b := make([]byte, st.Size())
	_, err = io.ReadFull(f, b)
	return b, err
}
