// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"path"

	"sandboxctl.dev/desired/zone"
	"sandboxctl.dev/gofer"
)

// localtime is the file in /etc that C libraries take the time zone from.
const localtime = "localtime"

// ZoneFiles are the files and links that say which time zone a sandbox has, at the places
// where the C libraries, Go, Java and ICU look. /etc/localtime is a link, as on hosts: who
// wants the name reads it out of the link. The data lie where that leads, so that a root
// needs no database. A link that the root has there is replaced, not followed: it leads to
// the data of another zone.
func ZoneFiles(z *zone.Zone) (files []gofer.File, links []gofer.Link) {
	switch {
	case z == nil:
		return nil, nil
	case z.Name == "":
		return []gofer.File{{Path: "etc/" + localtime, Mode: 0o644, Data: z.Data}}, nil
	}
	at := path.Join(zone.Dir, z.Name)
	return []gofer.File{
		{Path: at[1:], Mode: 0o644, Data: z.Data},
		{Path: "etc/timezone", Mode: 0o644, Data: []byte(z.Name + "\n")},
	}, []gofer.Link{{Path: "etc/" + localtime, Target: at}}
}

// addZone adds the time zone of a sandbox to the view of the host. /usr is that of the
// host: data that it lacks are below /etc.
func addZone(t *gofer.Tree, z *zone.Zone) {
	files, links := ZoneFiles(z)
	if z != nil && z.Name != "" {
		if z.Installed {
			files = files[1:]
		} else {
			files[0].Path = path.Join("etc/zoneinfo", z.Name)
			links[0].Target = "/" + files[0].Path
			t.Dirs = append(t.Dirs, dirsOf(files[0].Path)...)
		}
	}
	t.Files, t.Links = append(t.Files, files...), append(t.Links, links...)
}
