// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"sandboxctl.dev/launcher/setup"
)

// Image is the image that a root is, while a sandbox is started from it. The methods of
// one that is nil say that the root is none.
type Image struct {
	*setup.Image

	// Tree is what is in it. Links lead inside of it only.
	Tree fs.FS
	// File opens the file that the sentry maps.
	File func() (*os.File, error)
	// Verify finds out whether it is damaged, nil if nobody can.
	Verify func(context.Context) error
	// Release ends its use. Until then it is kept in the store.
	Release func()
}

// Setup is what a set-up depends on.
func (img *Image) Setup() *setup.Image {
	if img == nil {
		return nil
	}
	return img.Image
}

// Close ends its use.
func (img *Image) Close() {
	if img != nil && img.Release != nil {
		img.Release()
	}
}

// Blame finds out whether a start has failed because the image is damaged, and says so
// then: another try is worth it, with an image that is fetched again.
func (img *Image) Blame(ctx context.Context, failed error) error {
	if failed == nil || img == nil || img.Verify == nil || ctx.Err() != nil {
		return failed
	}
	if err := img.Verify(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w (the start: %s)", err, failed.Error())
	}
	return failed
}

// Open opens the file that the sentry maps.
func (img *Image) Open() (*os.File, error) {
	if img == nil {
		return nil, nil
	}
	f, err := img.File()
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", img.Ref, err)
	}
	return f, nil
}

// ReadFile reads the beginning of a regular file.
func (img *Image) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := img.Tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", name), err)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// maxUserFile bounds /etc/passwd and /etc/group of an image. Who made it is not
// trusted, and its files are read by the daemon.
const maxUserFile = 1 << 20

// ReadUsers reads /etc/passwd and /etc/group.
func (img *Image) ReadUsers() error {
	for name, to := range map[string]*[]byte{"etc/passwd": &img.Passwd, "etc/group": &img.Group} {
		b, err := img.ReadFile(name, maxUserFile+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(b) > maxUserFile {
			err = fmt.Errorf("it has more than %d bytes", maxUserFile)
		}
		if err != nil {
			return fmt.Errorf("read /%s of the image: %w", name, err)
		}
		*to = b
	}
	return nil
}
