// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

// peek returns the beginning of a file of a sandbox that has not been started, as
// its application would see it: below the volume or the root that it is in, links
// followed inside of that.
func peek(st *setup.Setup, p string) []byte {
	from, rest := st.Root, path.Clean(p)
	if from.Host {
		from.Path = "/"
		if !showsHost(rest) {
			from.Path = ""
		}
	}
	longest := ""
	i := 0
	for _, m := range st.Spec.Mounts {
		below := p == m.Destination || strings.HasPrefix(p, strings.TrimSuffix(m.Destination, "/")+"/")
		bind := m.Type == "bind" && i < len(st.Volumes)
		if below && len(m.Destination) >= len(longest) {
			longest, from = m.Destination, setup.Source{}
			if bind {
				from = st.Volumes[i]
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
	b, err := readBeginning(from.Path, strings.Trim(rest, "/"))
	if err != nil {
		return nil
	}
	return b
}

// showsHost says whether root.host shows a path as the host has it.
func showsHost(p string) bool {
	for _, d := range hostDirs {
		if strings.HasPrefix(p, "/"+d+"/") {
			return true
		}
	}
	return false
}

func readBeginning(tree, rest string) ([]byte, error) {
	f, err := openAt2(unix.AT_FDCWD, tree, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if rest != "" {
		below, err := openAt2(int(f.Fd()), rest, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
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
	return io.ReadAll(io.LimitReader(file, sentry.MaxInterpreterLine))
}
