// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/desiredtest"
)

// An ignore file means what git makes of it.
func TestIgnoreAsGit(t *testing.T) {
	t.Parallel()
	needTool(t, "git")
	files := []string{
		"a.yaml", "b.yml", "c.json", "UPPER.YAML", "compose.yaml", "docker-compose.yml", "sub/a.yaml", "sub/compose.yaml", "sub/deep/a.yaml", "sub/deep/x.yaml",
		"keep/a.yaml", "keep/b.yaml", "node_modules/p/package.json", "sub/node_modules/p/q.yaml", "#hash.yaml", "!bang.yaml", "with space.yaml", "f1.yaml", "f2.yaml",
	}
	for name, ignore := range map[string]map[string]string{
		"names":                  {".": "compose.yaml\ndocker-*\n"},
		"extension":              {".": "*.json\n*.yml\n"},
		"directory":              {".": "node_modules/\n"},
		"directory, not a file":  {".": "a.yaml/\n"},
		"anchored":               {".": "/a.yaml\n/sub/compose.yaml\n"},
		"anchored in the middle": {".": "sub/a.yaml\n"},
		"all but one":            {".": "*\n!a.yaml\n"},
		"all but a directory":    {".": "/*\n!/keep/\n"},
		"all but a name below":   {".": "*.yaml\n!keep\n"},
		"all but a directory's":  {".": "*.yaml\n!keep/*.yaml\n"},
		"parent ignored":         {".": "sub/\n!sub/a.yaml\n"},
		"the last counts":        {".": "!a.yaml\na.yaml\n"},
		"any depth":              {".": "**/x.yaml\n"},
		"all below":              {".": "sub/**\n"},
		"between":                {".": "sub/**/a.yaml\n"},
		"comments and spaces":    {".": "# a.yaml\n\n  \na.yaml   \nb.yml\r\n"},
		"quoted":                 {".": "\\#hash.yaml\n\\!bang.yaml\nwith\\ space.yaml\n"},
		"classes":                {".": "f[12].yaml\n[!a-z]*\n"},
		"question mark":          {".": "f?.yaml\n?.json\n"},
		"case":                   {".": "*.yaml\n"},
		"nested":                 {".": "a.yaml\n", "sub": "!a.yaml\nx.yaml\n"},
		"nested, anchored":       {"sub": "/a.yaml\ndeep/x.yaml\n"},
		"nested, everything":     {"sub": "*\n"},
		"nothing":                {".": ""},
		"nothing, in words":      {".": "!\n/\n#\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			for _, f := range files {
				desiredtest.Must(t, os.MkdirAll(filepath.Join(top, filepath.Dir(f)), 0o755))
				desiredtest.Must(t, os.WriteFile(filepath.Join(top, f), []byte("x: [\n"), 0o644))
			}
			for dir, text := range ignore {
				for _, n := range []string{desired.IgnoreFile, ".gitignore"} {
					desiredtest.Must(t, os.WriteFile(filepath.Join(top, dir, n), []byte(text), 0o644))
				}
			}
			git := exec.CommandContext(t.Context(), "git", "init", "-q")
			git.Dir = top
			desiredtest.Must(t, git.Run())
			s, err := New(Options{Path: top, Once: true}).Load(t.Context())
			desiredtest.Must(t, err)
			read := map[string]bool{}
			for _, p := range s.Problems {
				read[p.File] = true
			}
			for _, f := range files {
				check := exec.CommandContext(t.Context(), "git", "check-ignore", "-q", "--", "./"+f)
				check.Dir, check.Env = top, append(os.Environ(), "HOME="+top, "GIT_CONFIG_NOSYSTEM=1")
				if ignored := check.Run() == nil; ignored == read[f] {
					t.Errorf("%s: git ignores it: %v, here it is read: %v", f, ignored, read[f])
				}
			}
		})
	}
}

// An ignore file that can't be relied on is a problem, and hides nothing.
func TestIgnoreFileBad(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(v *scenery){
		"a link to nothing": func(v *scenery) { v.ln("nowhere", desired.IgnoreFile) },
		"a link out":        func(v *scenery) { v.ln("/etc/hostname", desired.IgnoreFile) },
		"a directory":       func(v *scenery) { v.mkdir(desired.IgnoreFile) },
		"others'": func(v *scenery) {
			v.write(desired.IgnoreFile, "*\n")
			v.must(os.Chmod(v.at(desired.IgnoreFile), 0o666))
		},
		"large": func(v *scenery) { v.write(desired.IgnoreFile, strings.Repeat("#", MaxIgnoreBytes+1)+"\n*\n") },
		"many":  func(v *scenery) { v.write(desired.IgnoreFile, strings.Repeat("*\n", maxPatterns+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &scenery{newTree(t, Options{})}
			v.write("a.yaml", named("a"))
			v.settled()
			do(v)
			s := v.settled()
			v.expect(s, "a", desired.ReasonInvalidManifests)
			if len(s.Problems) != 1 || s.Problems[0].File != desired.IgnoreFile {
				t.Errorf("problems: %v", s.Problems)
			}
		})
	}
}

// What comes to be ignored is removed, if that lasts, and comes back; a half-written
// ignore file changes nothing.
func TestIgnoreChanges(t *testing.T) {
	t.Parallel()
	v := &scenery{newTree(t, Options{PollEvery: time.Hour})}
	v.write("a.yaml", named("a"))
	v.write("sub/b.yaml", named("b"))
	v.write("sub/.keep", "")
	v.watching()
	is := func(want string) func(*desired.Snapshot) bool {
		return func(s *desired.Snapshot) bool { return names(s) == want && s.Complete }
	}
	v.eventually("start", is("a b"))
	v.write(desired.IgnoreFile, "sub/\n")
	v.eventually("ignored", is("a"))
	v.write(desired.IgnoreFile, "*\n!a.yaml\n")
	v.eventually("other words", is("a"))
	f, err := os.OpenFile(v.at(desired.IgnoreFile), os.O_WRONLY|os.O_TRUNC, 0)
	v.must(err)
	for _, part := range []string{"a", ".yaml", "\n!a.", "yaml\nsub\n"} {
		_, err := f.WriteString(part)
		v.must(err)
		if s := v.load(); s.Removed("a", "a.yaml") || s.Lookup("b") != nil {
			t.Errorf("half of it counts: %q %s", names(s), s.Reason)
		}
	}
	v.must(f.Close())
	v.eventually("whole", is("a"))
	v.rm(desired.IgnoreFile)
	v.eventually("removed", is("a b"))
}
