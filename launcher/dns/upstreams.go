// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ResolvConfPath says which servers the host asks.
	ResolvConfPath = "/etc/resolv.conf"
	// ResolvedPath says which ones systemd-resolved asks, if ResolvConfPath names only
	// itself.
	ResolvedPath = "/run/systemd/resolve/resolv.conf"

	maxServers    = 4
	maxResolvConf = 64 << 10
	// lookAgain is how old what is known of the files may be.
	lookAgain = time.Second
)

// Upstreams are the servers of the host. The files are read again when they have changed.
type Upstreams struct {
	// Path and Resolved are ResolvConfPath and ResolvedPath if empty.
	Path, Resolved string

	mu      sync.Mutex
	looked  time.Time
	of      []stamp
	servers []netip.Addr
	err     error
}

// stamp tells one content of a file from another.
type stamp struct {
	dev, ino   uint64
	size       int64
	mtim, ctim unix.Timespec
}

// Servers are those to ask, in order. When the files can't be read, those that were last
// read are returned with the error: a file that is being replaced takes nobody's names away.
func (u *Upstreams) Servers() ([]netip.Addr, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.looked.IsZero() && time.Since(u.looked) < lookAgain {
		return u.servers, u.err
	}
	u.looked = time.Now()
	path, resolved := u.Path, u.Resolved
	if path == "" {
		path = ResolvConfPath
	}
	if resolved == "" {
		resolved = ResolvedPath
	}
	of := []stamp{stampOf(path), stampOf(resolved)}
	if slices.Equal(of, u.of) && u.err == nil {
		return u.servers, nil
	}
	servers, err := readServers(path, resolved)
	u.err = err
	if err == nil {
		u.of, u.servers = of, servers
	}
	return u.servers, u.err
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}
	}
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// readServers reads the servers of the host. Those of systemd-resolved come after itself: it
// knows which of them is to be asked for what, and may not be running.
func readServers(path, resolved string) ([]netip.Addr, error) {
	servers, err := nameservers(path)
	if err != nil {
		return nil, err
	}
	stub := slices.ContainsFunc(servers, func(a netip.Addr) bool {
		return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
	})
	if stub {
		more, err := nameservers(resolved)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, a := range more {
			if !slices.Contains(servers, a) {
				servers = append(servers, a)
			}
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s names no server", path)
	}
	return servers[:min(len(servers), maxServers)], nil
}

// nameservers reads the servers that a resolv.conf names.
func nameservers(path string) (out []netip.Addr, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	return out, lines.Err()
}
