// SPDX-License-Identifier: Apache-2.0

// Package projquotatest makes file systems with project quotas, for tests: few hosts have one,
// and some kernels can have none.
package projquotatest

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk mounts a new ext4 file system of some MiB with project quotas, until the test ends.
// It is "" where the kernel of this host has none, which its configuration has to say: there
// the test looks at what is refused.
func Disk(t testing.TB, mib int64) string {
	t.Helper()
	if !KernelHas() {
		t.Log("this kernel has no quotas of ext4 (CONFIG_QFMT_V2)")
		return ""
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "disk")
	if err := Mount(filepath.Join(dir, "image"), at, mib); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return at
}

// Mount makes such a file system in a new file, and mounts it at a directory.
func Mount(image, at string, mib int64) error {
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close(), os.MkdirAll(at, 0o700))
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image}, {"mount", "-o", "loop,prjquota", image, at}} {
		if err != nil {
			return err
		}
		out, rerr := exec.Command(args[0], args[1:]...).CombinedOutput()
		if rerr != nil {
			err = fmt.Errorf("%q: %w: %s", args, rerr, out)
		}
	}
	if err == nil {
		err = errors.Join(os.Remove(filepath.Join(at, "lost+found")), os.Chmod(at, 0o700))
	}
	return err
}

// KernelHas says whether the kernel has the quotas of ext4: what it was configured with, and
// not whether a mount succeeds, which is for the tests to find out.
func KernelHas() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	for _, path := range []string{"/proc/config.gz", "/boot/config-" + unix.ByteSliceToString(u.Release[:])} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(path, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				continue
			}
		}
		for s := bufio.NewScanner(r); s.Scan(); {
			switch s.Text() {
			case "CONFIG_QFMT_V2=y":
				return true
			case "CONFIG_QFMT_V2=m": // which a small kernel may come without
				found, err := filepath.Glob("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/kernel/fs/quota/quota_v2.ko*")
				return err == nil && len(found) > 0
			}
		}
	}
	return false
}
