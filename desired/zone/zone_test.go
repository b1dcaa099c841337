// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A name reaches zones, and no other file of the host.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", ".", "..", "/", "../../etc/shadow", "../../../etc/passwd", "/etc/shadow", "/usr/share/zoneinfo/Europe/Berlin", "Europe/../../../../etc/shadow", "Europe//Berlin",
		"Europe/Berlin/", "./Europe/Berlin", "Europe/./Berlin", "Europe\\Berlin", "Europe/Berlin\x00", "Europe/Berlin\n", " Europe/Berlin", "Europe/Berlin ", ":Europe/Berlin",
		"localtime", "Local", "zone.tab", "tzdata.zi", "Europe", "-Europe", "CET-1CEST", "a/b/c/d/e", strings.Repeat("A", 100), "Europe/Bérlin", "$(id)", "{}", "nosuch", "HOST", "Host",
	} {
		if z, err := Load(name); err == nil {
			t.Errorf("%q is a zone of %d bytes", name, len(z.Data))
		}
		if err := Check(name); err == nil || !strings.Contains(err.Error(), "host") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"Europe/Berlin", "UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires", "EST5EDT", Host} {
		if err := Check(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A directory of zones in which somebody has put links, directories, other files.
func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	berlin, err := Load("Europe/Berlin")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "secret"), berlin.Data, 0o600))
	db := filepath.Join(dir, "db")
	must(t, os.Mkdir(db, 0o755))
	must(t, os.WriteFile(filepath.Join(db, "Zone"), berlin.Data, 0o600))
	must(t, os.WriteFile(filepath.Join(db, "Text"), []byte("no zone"), 0o600))
	must(t, os.WriteFile(filepath.Join(db, "Large"), append(bytes.Clone(berlin.Data), make([]byte, maxData)...), 0o600))
	must(t, os.WriteFile(filepath.Join(db, "Cut"), berlin.Data[:len(berlin.Data)/2], 0o600))
	for name, to := range map[string]string{"Link": "Zone", "Out": "../secret", "Abs": filepath.Join(dir, "secret"), "Circle": "Circle", "Null": "/dev/zero"} {
		must(t, os.Symlink(to, filepath.Join(db, name)))
	}
	for name, good := range map[string]bool{
		"Zone": true, "Link": true, "Out": false, "Abs": false, "Circle": false, "Null": false, "Text": false, "Large": false, "Cut": false, ".": false, "nosuch": false,
	} {
		if data, err := read(db, name); (err == nil) != good || good && !bytes.Equal(data, berlin.Data) {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}

// What is written of Go's own data tells the same times, long ago and far from now.
func TestEncode(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"Europe/Berlin", "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns", "Asia/Pyongyang", "Pacific/Apia", "Europe/Dublin", "Etc/GMT-14", "Antarctica/Troll",
	} {
		loc, err := time.LoadLocation(name)
		must(t, err)
		got, err := time.LoadLocationFromTZData(name, encode(loc))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for at := time.Date(1801, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2150; at = at.Add(37*time.Hour + 13*time.Minute) {
			a, b := at.In(loc), at.In(got)
			if kindAt(a) != kindAt(b) {
				t.Errorf("%s: %s is %s", name, a, b)
				break
			}
		}
	}
}

// What the host says, in the ways in which hosts say it.
func TestOfHost(t *testing.T) {
	t.Parallel()
	berlin, err := Load("Europe/Berlin")
	must(t, err)
	tokyo, err := Load("Asia/Tokyo")
	must(t, err)
	own := encode(time.FixedZone("OWN", 1234))
	for name, c := range map[string]struct {
		link     string
		data     []byte
		timezone string
		want     string
		bytes    []byte
	}{
		"a link":                    {"/usr/share/zoneinfo/Europe/Berlin", nil, "", "Europe/Berlin", berlin.Data},
		"a relative link":           {"../usr/share/zoneinfo/Asia/Tokyo", nil, "Europe/Berlin", "Asia/Tokyo", tokyo.Data},
		"a link by way of another":  {"other", nil, "", "Europe/Berlin", berlin.Data},
		"a database elsewhere":      {"/nix/store/x/share/zoneinfo/Europe/Berlin", nil, "", "Europe/Berlin", berlin.Data},
		"a copy":                    {"", berlin.Data, "Europe/Berlin\n", "Europe/Berlin", berlin.Data},
		"a copy, another name":      {"", berlin.Data, "Asia/Tokyo\n", "", berlin.Data},
		"a copy, no name":           {"", berlin.Data, "", "", berlin.Data},
		"a copy, a hostile name":    {"", berlin.Data, "../../etc/shadow", "", berlin.Data},
		"a zone of its own":         {"", own, "Europe/Berlin\n", "", own},
		"nothing":                   {"", nil, "", "UTC", nil},
		"a link to nothing":         {"/usr/share/zoneinfo/Mars/Olympus", nil, "", "UTC", nil},
		"a link to a hostile place": {"/usr/share/zoneinfo/../../../etc/shadow", nil, "", "?", nil},
		"no zone":                   {"", []byte("text"), "Europe/Berlin", "?", nil},
		"a circle":                  {"localtime", nil, "", "?", nil},
	} {
		dir := t.TempDir()
		h := host{filepath.Join(dir, "localtime"), filepath.Join(dir, "timezone")}
		must(t, os.Symlink("/usr/share/zoneinfo/Europe/Berlin", filepath.Join(dir, "other")))
		if c.link != "" {
			must(t, os.Symlink(c.link, h.localtime))
		} else if c.data != nil {
			must(t, os.WriteFile(h.localtime, c.data, 0o600))
		}
		if c.timezone != "" {
			must(t, os.WriteFile(h.timezone, []byte(c.timezone), 0o600))
		}
		z, err := h.zone()
		switch {
		case c.want == "?":
			if err == nil {
				t.Errorf("%s: %s", name, z.Name)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case z.Assumed != (name == "nothing" || name == "a link to nothing") || z.Assumed != (z.ID() == ""):
			t.Errorf("%s: assumed: %t, %q", name, z.Assumed, z.ID())
		case z.Name != c.want || c.bytes != nil && !bytes.Equal(z.Data, c.bytes):
			t.Errorf("%s: %q with %d bytes", name, z.Name, len(z.Data))
		}
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	a := Zone{Name: "A", Data: []byte("x")}
	for name, c := range map[string]struct {
		b    Zone
		same bool
	}{
		"same": {Zone{Name: "A", Data: []byte("x"), Installed: true}, true}, "another name": {Zone{Name: "B", Data: []byte("x")}, false}, "other rules": {Zone{Name: "A", Data: []byte("y")}, false},
	} {
		if (a.ID() == c.b.ID()) != c.same {
			t.Errorf("%s: %s %s", name, a.ID(), c.b.ID())
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(Dir, "Europe")); errors.Is(err, os.ErrNotExist) {
		if err := Check("Europe/Berln"); err == nil { // nothing to suggest, and refused all the same
			t.Error("a misspelt zone is taken")
		}
		return
	}
	if err := Check("Europe/Berln"); err == nil || !strings.Contains(err.Error(), `did you mean "Europe/Berlin"?`) {
		t.Error(err)
	}
}

// A database that can't be read now has the zone perhaps: other data of it would be a change
// that restarts sandboxes. One that does not have it is not the end.
func TestLoadUnreadable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(path string) error
		good bool
	}{
		"no file":     {func(string) error { return nil }, true},
		"no zone":     {func(p string) error { return os.WriteFile(p, []byte("text"), 0o600) }, true},
		"a directory": {func(p string) error { return os.Mkdir(p, 0o755) }, true},
		"a circle":    {func(p string) error { return os.Symlink("Tokyo", p) }, true},
		"out of it":   {func(p string) error { return os.Symlink("../../../zone", p) }, true},
		"unreadable":  {func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }, false}, // ENXIO
	} {
		db := t.TempDir()
		must(t, os.Mkdir(db+"/Asia", 0o755))
		must(t, c.make(db+"/Asia/Tokyo"))
		z, err := load([]string{db + "/none", db}, "Asia/Tokyo")
		if (err == nil) != c.good || errors.Is(err, errUnknown) || z != nil && z.Installed {
			t.Errorf("%s: %v %v", name, z, err)
		}
	}
}
