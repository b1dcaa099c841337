// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// etcOf makes an /etc of files "PATH MODE [UID]", directories that end in a
// slash, and links "PATH -> TARGET".
func etcOf(t *testing.T, entries ...string) string {
	t.Helper()
	etc := t.TempDir()
	for _, e := range entries {
		f := strings.Fields(e)
		p := filepath.Join(etc, f[0])
		if f[1] == "->" {
			if err := os.Symlink(f[2], p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var mode os.FileMode
		if _, err := fmt.Sscanf(f[1], "%o", &mode); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(f[0], "/") {
			err = os.MkdirAll(p, 0o755)
		} else {
			err = os.WriteFile(p, []byte(f[0]), 0o600)
		}
		err = errors.Join(err, os.Chmod(p, mode))
		if len(f) == 3 {
			uid := 0
			fmt.Sscan(f[2], &uid)
			err = errors.Join(err, os.Lchown(p, uid, uid))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return etc
}

// A host root shows what programs need of /etc, and never what not every user of
// the host may read.
func TestHostEtc(t *testing.T) {
	hosttest.NeedsRoot(t, "mounts and files of others need root")
	for name, c := range map[string]struct {
		etc  []string
		want string
	}{
		"nothing":                   {nil, ""},
		"what nobody names":         {[]string{"shadow 640", "passwd 644", "fstab 644", "ssh/ 755", "ssh/ssh_host_key 600", "ssl/ 755", "ssl/private/ 700", "hostname 644"}, ""},
		"a runtime":                 {[]string{"java-17-openjdk/ 755", "java-17-openjdk/security/ 755", "java-17-openjdk/security/java.policy 644"}, "etc/java-17-openjdk/"},
		"another version":           {[]string{"java-21-openjdk/ 755", "maven/ 755", "fonts/ 755", "fonts/conf.d/ 755", "fonts/conf.d/10.conf -> /usr/share/x"}, "etc/fonts/ etc/java-21-openjdk/ etc/maven/"},
		"a file and a link":         {[]string{"mime.types 644", "localtime -> /usr/share/zoneinfo/UTC"}, "etc/mime.types etc/localtime@"},
		"a secret in it":            {[]string{"maven/ 755", "maven/settings.xml 600", "maven/m2.conf 644", "maven/link -> ../shadow"}, "etc/maven/m2.conf etc/maven/link@"},
		"a secret group":            {[]string{"fonts/ 755", "fonts/a.conf 640", "fonts/b.conf 644"}, "etc/fonts/b.conf"},
		"a key for all":             {[]string{"ssl/ 755", "ssl/certs/ 755", "ssl/certs/host.key 644", "ssl/certs/ca.crt 644"}, "etc/ssl/certs/ca.crt"},
		"a directory in it":         {[]string{"java-17/ 755", "java-17/management/ 700", "java-17/management/a 644", "java-17/b 644"}, "etc/java-17/b"},
		"a directory that is":       {[]string{"java-17/ 750", "java-17/b 644"}, ""},
		"below a directory of root": {[]string{"ssl/ 700", "ssl/certs/ 755", "ssl/certs/ca.crt 644"}, ""},
		"somebody else's file":      {[]string{"fonts/ 755", "fonts/a.conf 644 1000", "fonts/b.conf 644"}, "etc/fonts/b.conf"},
		"somebody else's directory": {[]string{"fonts/ 755 1000", "fonts/a.conf 644"}, ""},
		"written by others":         {[]string{"fonts/ 777", "fonts/a.conf 644", "mime.types 666", "maven/ 755", "maven/m2.conf 664", "maven/b 644"}, "etc/maven/b"},
	} {
		t.Run(name, func(t *testing.T) {
			shown := &gofer.Tree{}
			var d proc.Donation
			var binds []*tree
			if err := addHostEtc(shown, etcOf(t, c.etc...), false, &d, &binds); err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var got []string
			for _, b := range shown.Binds {
				p := b.Path
				if b.IsDir {
					p += "/"
				}
				got = append(got, p)
			}
			for _, l := range shown.Links {
				got = append(got, l.Path+"@")
			}
			want := strings.Fields(c.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%v, expected %v", got, want)
			}
		})
	}
}

// Every user of a host root has a name and a home directory.
func TestHostUser(t *testing.T) {
	t.Parallel()
	maps := &idmap.Maps{UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 2000}}, GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 2000}}}
	for name, c := range map[string]struct {
		user          *setup.User
		maps          *idmap.Maps
		passwd, group string
		home          string
	}{
		"root":                {nil, nil, "", "", "[] []"},
		"root, said so":       {&setup.User{}, nil, "", "", "[] []"},
		"one with a name":     {&setup.User{UID: 33, GID: 33}, nil, "", "", "[] []"},
		"nobody":              {&setup.User{UID: 65534, GID: 65534}, nil, "", "", "[] []"},
		"without a name":      {&setup.User{UID: 1000, GID: 1000}, nil, "user:x:1000:1000:user:/home/user:/bin/sh\n", "user:x:1000:\n", "[{home/user 448}] [{home/user 1000 1000}]"},
		"a group with a name": {&setup.User{UID: 1000, GID: 0}, nil, "user:x:1000:0:user:/home/user:/bin/sh\n", "", "[{home/user 448}] [{home/user 1000 0}]"},
		"more groups":         {&setup.User{UID: 7, GID: 8, Groups: []uint32{8, 33, 9, 9}}, nil, "user:x:7:8:user:", "user:x:8:\ngroup9:x:9:user\n", "[{home/user 448}] [{home/user 7 8}]"},
		"the highest":         {&setup.User{UID: 4294967294, GID: 4294967294}, nil, "user:x:4294967294:4294967294:", "user:x:4294967294:\n", "[{home/user 448}] [{home/user 4294967294 4294967294}]"},
		"mapped":              {&setup.User{UID: 1000, GID: 1000}, maps, "user:x:1000:", "user:x:1000:\n", "[{home/user 448}] [{home/user 1000 1000}]"},
		"not mapped":          {&setup.User{UID: 3000, GID: 1000}, maps, "user:x:3000:", "user:x:1000:\n", "[{home/user 511}] []"},
		"group not mapped":    {&setup.User{UID: 1000, GID: 3000}, maps, "user:x:1000:", "user:x:3000:\n", "[{home/user 511}] []"},
	} {
		tree := &gofer.Tree{}
		passwd, group := addUser(tree, setup.Source{User: c.user, Maps: c.maps})
		if !strings.Contains(passwd, c.passwd) || c.passwd == "" && strings.Contains(passwd, "user:") {
			t.Errorf("%s: passwd %q", name, passwd)
		}
		if !strings.Contains(group, c.group) || c.group == "" && strings.Contains(group, "user:") {
			t.Errorf("%s: group %q", name, group)
		}
		if got := fmt.Sprint(tree.Dirs, " ", tree.Owners); got != c.home {
			t.Errorf("%s: %s, expected %s", name, got, c.home)
		}
	}
}
