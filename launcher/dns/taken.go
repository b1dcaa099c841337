// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// tables are the sockets of the kernel, and the states in which one keeps others from the
// port: that of a listener, and of a datagram socket that is bound.
var tables = []struct{ proto, path, state string }{
	{"udp", "/proc/net/udp", "07"}, {"udp", "/proc/net/udp6", "07"}, {"tcp", "/proc/net/tcp", "0A"}, {"tcp", "/proc/net/tcp6", "0A"},
}

// Taken says by which protocols somebody has port 53 of all addresses of this host, so that
// gateways can't be listened on. The answerer itself never has.
func Taken() (protocols []string, err error) {
	for _, t := range tables {
		taken, err := wildcard(t.path, t.state)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // without IPv6 there is none
			return nil, err
		}
		if taken {
			protocols = append(protocols, t.proto)
		}
	}
	return protocols, nil
}

// wildcard says whether a table has a socket with the port and no address.
func wildcard(path, state string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		if at, ok := strings.CutSuffix(fields[1], suffix); ok && strings.Trim(at, "0") == "" {
			return true, nil
		}
	}
	return false, lines.Err()
}
