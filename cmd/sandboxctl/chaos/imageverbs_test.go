// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// verb runs a verb with an injector to its end.
func (w *world) verb(fail func(call string, n int, arg argument) unix.Errno, args ...string) (*injector, string, error) {
	w.t.Helper()
	cmd := w.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in := injectInto(w.t, fail, func(how func(*exec.Cmd)) int {
		how(cmd)
		must(w.t, cmd.Start())
		return cmd.Process.Pid
	})
	err := cmd.Wait()
	<-in.done
	return in, out.String(), err
}

// storeOfOne is nil if the store has one image that can be used, and nothing else.
func (w *world) storeOfOne() error {
	out, err := w.run("image", "ls", "-o", "json")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var list []struct{ Problem string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].Problem != "" {
		return fmt.Errorf("%v: %s", err, out)
	}
	var files []string
	err = filepath.WalkDir(filepath.Join(w.state, "images"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && (!d.IsDir() || filepath.Base(filepath.Dir(p)) == "pulls") {
			files = append(files, p)
		}
		return err
	})
	if err == nil && len(files) != 3 { // its tree, its description and its reference
		err = fmt.Errorf("left: %q", files)
	}
	return err
}

// TestEveryCallOfImageVerbsFailsOnce has every system call of `image import` and `image
// pull` fail once: the verb ends, and names the error unless the image is there as it should
// be. The next call of the verb makes the image, and nothing of the first one is left.
func TestEveryCallOfImageVerbsFailsOnce(t *testing.T) {
	requireHost(t)
	for name, args := range map[string]func(w *world) []string{
		"import": func(w *world) []string {
			return []string{"image", "import", filepath.Join(w.dir, "rootfs"), "web:1"}
		},
		"pull": func(w *world) []string { return []string{"image", "pull", "-q", w.ref("v1")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.layout(false)
			verb := args(w)
			forget := func() { must(t, os.RemoveAll(filepath.Join(w.state, "images"))) }
			in, out, err := w.verb(never, verb...)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			all := allFaults(t, in.total())
			if one := os.Getenv("FAULT"); one != "" {
				all = slices.DeleteFunc(all, func(f oneFault) bool { return f.String() != one })
			} else if n := int(number(t, "FAULTS", 40)); n > 0 && n < len(all) {
				all = spread(all, n, number(t, "SEED", 1))
			}
			failed := 0
			for _, f := range all {
				forget()
				in, out, err := w.verb(once(f), verb...)
				for _, what := range in.faults() {
					named := strings.Contains(out, f.errno.Error()) || strings.Contains(out, "fatal error: ") // of Go's runtime
					switch {
					case err != nil && !named:
						t.Errorf("FAULT=%s at %s: %v, and the error is not named: %s", f, what.path, err, out)
					case err != nil:
						failed++
					case !named && !isAbsorbed(f, what.path):
						t.Errorf("nobody was told of FAULT=%s at %s: %s", f, what.path, out)
					}
				}
				if err == nil {
					if err := w.storeOfOne(); err != nil {
						t.Errorf("FAULT=%s: %v", f, err)
					}
				}
				if out, err := w.run(verb...); err != nil {
					t.Errorf("after FAULT=%s: %v: %s", f, err, out)
				}
				if err := w.storeOfOne(); err != nil {
					t.Errorf("after FAULT=%s: %v", f, err)
				}
			}
			t.Logf("%d faults, of which %d failed the verb", len(all), failed)
			if failed == 0 && os.Getenv("FAULT") == "" {
				t.Error("no fault failed the verb")
			}
		})
	}
}
