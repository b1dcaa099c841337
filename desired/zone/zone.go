// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
	_ "time/tzdata" // for hosts without the package tzdata

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/yamldoc"
)

// Host is the name of the zone that the host has.
const Host = "host"

// Zone is a time zone.
type Zone struct {
	// Name is that of the database, as in Europe/Berlin; "" of a zone of the host that
	// has none.
	Name string
	// Data is a TZif file (RFC 9636).
	Data []byte
	// Installed says that the host has it, in Dir.
	Installed bool
	// Assumed says that the host tells none, which means UTC.
	Assumed bool
}

// Dir is where programs look for the data of a zone by its name.
const Dir = "/usr/share/zoneinfo"

// dirs have the data of zones on hosts. Only root writes there.
var dirs = []string{Dir, "/etc/zoneinfo"}

// maxData bounds a file of a zone. None has more than 4 kB.
const maxData = 64 << 10

// names has no dot: the name becomes a path here and in the sandbox, and files of the
// database that are no zones have one.
var names = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_+-]*(/[A-Za-z0-9_][A-Za-z0-9_+-]*){0,3}$`)
})

const (
	maxName = 64
	rule    = "expected the name of a time zone such as Europe/Berlin, or host for that of the host"
)

var errUnknown = errors.New("no time zone")

// CheckName says what no zone can be called, whatever this host has.
func CheckName(name string) error {
	switch {
	case len(name) > maxName || !names().MatchString(name):
		return fmt.Errorf("%s, got %q", rule, yamldoc.Clip(name))
	case name == "localtime" || name == "Local": // which Go and Debian have beside the zones
		return fmt.Errorf("%s is no name of a time zone; use host", name)
	}
	return nil
}

// Check says what is wrong with a name, nil if there is such a zone. One that can't be read
// now may be there.
func Check(name string) error {
	if err := CheckName(name); err != nil || name == Host {
		return err
	}
	if _, err := Load(name); !errors.Is(err, errUnknown) {
		return nil
	}
	msg := fmt.Sprintf("there is no time zone %q; %s", yamldoc.Clip(name), rule)
	if near := nearest(name); near != "" {
		msg += fmt.Sprintf("; did you mean %q?", near)
	}
	return errors.New(msg)
}

// Load returns the zone of a name of the database. The author of a manifest chooses the
// name: no path, link or other file of the host is reached by it.
func Load(name string) (*Zone, error) { return load(dirs, name) }

// notThere are what the kernel says of a zone that a database does not have. Another error
// is no evidence of that: the data that Go has are other ones, and a comparison
// would take the zone for changed, and restart all sandboxes that have it.
var notThere = []error{unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG}

func load(dirs []string, name string) (*Zone, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		data, err := read(dir, name)
		if err == nil {
			return &Zone{Name: name, Data: data, Installed: dir == Dir}, nil
		}
		if no := syscall.Errno(0); errors.As(err, &no) && !slices.Contains(notThere, error(no)) {
			return nil, err
		}
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%w %q", errUnknown, yamldoc.Clip(name))
	}
	return &Zone{Name: name, Data: encode(loc)}, nil
}

// read reads the data of a zone. A link leads nowhere but to another zone of the directory.
func read(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readZone(f)
}

var errNoData = errors.New("no data of a time zone")

// readZone reads a file and refuses what is no zone.
func readZone(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNoData
	}
	data, err := io.ReadAll(io.LimitReader(f, maxData+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxData {
		return nil, errNoData
	}
	if _, err := time.LoadLocationFromTZData("zone", data); err != nil {
		return nil, errNoData
	}
	return data, nil
}

// nearest is a zone of the host of the same area with a similar name, "" if there is none.
func nearest(name string) string {
	area, last := path.Split(name)
	for _, dir := range dirs {
		var all []string
		entries, _ := os.ReadDir(path.Join(dir, area))
		for _, e := range entries {
			if names().MatchString(e.Name()) {
				all = append(all, e.Name())
			}
		}
		if n := yamldoc.Nearest(last, all); n != "" && n != last {
			return area + n
		}
	}
	return ""
}
