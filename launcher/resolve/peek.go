// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// Peek returns the beginning of a file of a sandbox that has not been started, as
// its application would see it: below the volume or the root that it is in, links
// followed inside of that.
func Peek(st *setup.Setup, p string, size int64) []byte {
	from, rest := st.App().Root, path.Clean(p)
	if from.Host {
		from.Path = "/"
		if !hostfs.ShowsHost(rest) {
			from.Path = ""
		}
	}
	longest := ""
	i := 0
	for _, m := range st.App().Spec.Mounts {
		below := p == m.Destination || strings.HasPrefix(p, strings.TrimSuffix(m.Destination, "/")+"/")
		bind := m.Type == "bind" && i < len(st.App().Volumes)
		if below && len(m.Destination) >= len(longest) {
			longest, from = m.Destination, setup.Source{}
			if bind {
				from = st.App().Volumes[i]
			}
			rest = strings.TrimPrefix(p, m.Destination)
		}
		if bind {
			i++
		}
	}
	if from.Path == "" {
		return nil
	}
	b, err := readBeginning(from.Path, strings.Trim(rest, "/"), size)
	if err != nil {
		return nil
	}
	return b
}

func readBeginning(tree, rest string, size int64) ([]byte, error) {
	f, err := hostfs.OpenAt(unix.AT_FDCWD, tree, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if rest != "" {
		below, err := hostfs.OpenAt(int(f.Fd()), rest, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
		if err != nil {
			return nil, err
		}
		defer below.Close()
		f = below
	}
	// To open a FIFO of the host would take data from its reader.
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errors.New("no regular file"), err)
	}
	file, err := os.Open(proc.FDPath(f))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, size))
}
