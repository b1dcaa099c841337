// SPDX-License-Identifier: Apache-2.0

package nesting

import (
	"maps"
	"strings"
	"testing"
)

// What can't be mounted in another volume is told, and nothing that could be.
func TestProblems(t *testing.T) {
	t.Parallel()
	app := Volume{Name: "app", At: "/etc/app", Shape: Directory, Named: true, Files: []string{"app.conf", "conf.d/a.conf"}}
	part := Volume{Name: "part", At: "/etc/part", Shape: Directory, Named: true, Files: []string{"conf.d/a.conf", "app.conf"}, In: "conf.d"}
	free := Volume{Name: "free", At: "/free", Shape: Directory}
	one := Volume{Name: "one", At: "/etc/one", Shape: File}
	inner := Volume{Name: "inner", At: "/etc/app/inner", Shape: Directory, Named: true, Files: []string{"x"}}
	for name, c := range map[string]struct {
		at    string
		shape Shape
		want  string
	}{
		"a file on a file":                      {"/etc/app/app.conf", File, ""},
		"a file on nothing":                     {"/etc/app/new.conf", File, `volume "app" is read-only and has no file "new.conf"`},
		"a file on nothing in a directory":      {"/etc/app/conf.d/b.conf", File, `has no file "conf.d/b.conf"`},
		"a file on nothing in nothing":          {"/etc/app/other/b.conf", File, `has no file "other/b.conf"`},
		"a file on a directory":                 {"/etc/app/conf.d", File, `"conf.d" is a directory of volume "app"`},
		"a directory on nothing":                {"/etc/app/new/dir", Directory, ""},
		"a directory on a directory":            {"/etc/app/conf.d", Directory, ""},
		"a directory on a file":                 {"/etc/app/app.conf", Directory, `"app.conf" is a file of volume "app", and a directory`},
		"a directory below a file":              {"/etc/app/app.conf/x", Directory, `"app.conf" is a file of volume "app", and nothing`},
		"what only the host knows on nothing":   {"/etc/app/new.conf", Unknown, ""},
		"what only the host knows below a file": {"/etc/app/app.conf/x", Unknown, "nothing can be mounted below it"},
		"a name that begins the same":           {"/etc/app/app.conf.d", Directory, ""},
		"a path that begins the same":           {"/etc/application/x", File, ""},
		"a part of a volume":                    {"/etc/part/a.conf", File, ""},
		"a part that lacks it":                  {"/etc/part/app.conf", File, `has no file "conf.d/app.conf"`},
		"a volume that anybody fills":           {"/free/x", File, ""},
		"below one file":                        {"/etc/one/x", Directory, `it is below /etc/one, where volume "one" mounts one file`},
		"two levels":                            {"/etc/app/inner/x", File, ""},
		"two levels, and it is not there":       {"/etc/app/inner/app.conf", File, `volume "inner" is read-only and has no file "app.conf"`},
		"in no volume":                          {"/srv/x", File, ""},
		"no place":                              {"", File, ""},
	} {
		volumes := []Volume{app, {Name: "v", At: c.at, Shape: c.shape}, inner, part, free, one, {}}
		got := map[int]string{}
		maps.Insert(got, Problems(volumes))
		if c.want == "" && len(got) > 0 || c.want != "" && len(got) != 1 || !strings.Contains(got[1], c.want) {
			t.Errorf("%s: %v, expected %q", name, got, c.want)
		}
	}
}
