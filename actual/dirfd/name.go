// SPDX-License-Identifier: Apache-2.0

package dirfd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// gone is what the kernel says after the name of an entry that is there no more.
const gone = " (deleted)"

// HasName says whether the directory entry by which a file was opened is there still. That
// can't be told of names that end as those that are gone, for which another one is renamed
// and removed, and of paths of more than a page, of which the kernel says nothing: a sandbox
// makes both, and for neither is an error, or no start of another one would succeed.
func HasName(fd int, name string) (bool, error) {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if errors.Is(err, unix.ENAMETOOLONG) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look whether a name is still there: %w", err)
	}
	return path[strings.LastIndexByte(path, '/')+1:] == name && !strings.HasSuffix(name, gone), nil
}
