// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
)

// repository makes the directory a checkout, with the branches sh and edited, and
// one without any manifest.
func (d *scene) repository() {
	d.t.Helper()
	git := func(args ...string) {
		d.tool("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	}
	git("init", "-q", "-b", "sh")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	// Made without touching what is checked out.
	for branch, files := range map[string][]string{"edited": {"a.yaml", "b.yaml", "sub/c.yaml"}, "none": {"README"}} {
		tree := filepath.Join(d.top, "tree-"+branch)
		git("worktree", "add", "-q", "-b", branch, tree)
		d.tool("git", "-C", tree, "rm", "-q", "-r", ".")
		for _, f := range files {
			text := "nothing here\n"
			if name := strings.TrimSuffix(filepath.Base(f), ".yaml"); name != f {
				text = manifestOf(name, "edited")
			}
			d.writeTo(filepath.Join(tree, f), text)
		}
		git("-C", tree, "add", ".")
		git("-C", tree, "commit", "-q", "-m", branch)
		git("worktree", "remove", "--force", tree)
	}
}

// typed runs a program at a terminal, and types the keys when it has shown text.
func (d *scene) typed(keys, text, name string, args ...string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	cmd := d.command(ctx, name, args...)
	in, err := cmd.StdinPipe()
	d.must(err)
	out, err := cmd.StdoutPipe()
	d.must(err)
	d.must(cmd.Start())
	var shown []byte
	buf := make([]byte, 4096)
	for err == nil {
		var n int
		n, err = out.Read(buf)
		shown = append(shown, buf[:n]...)
		if keys != "" && strings.Contains(string(shown), text) {
			_, werr := in.Write([]byte(keys))
			d.must(werr)
			keys = ""
		}
	}
	if err := cmd.Wait(); err != nil {
		d.t.Fatalf("%s: %v\n%q", name, err, shown)
	}
}

// edits are what writes a manifest anew, each in its own way.
func edit(name, tool string, args ...string) disaster {
	return disaster{name: name, tool: tool, do: func(d *scene) {
		versions := []string{"edited", "sh", "edited"}
		for _, v := range versions {
			old := "sh"
			if v == "sh" {
				old = "edited"
			}
			use := make([]string, len(args))
			for i, a := range args {
				use[i] = strings.NewReplacer("OLD", "["+old+"]", "NEW", "["+v+"]", "TOP", d.top).Replace(a)
			}
			d.writeTo(filepath.Join(d.top, "new", "a.yaml"), manifestOf("a", v))
			// rsync takes a file of the same size and second for the same.
			at := time.Unix(1700000000+int64(len(v)), 0)
			d.must(os.Chtimes(filepath.Join(d.top, "new", "a.yaml"), at, at))
			d.tool(tool, use...)
			d.whole(v, "sh", "sh")
		}
	}}
}

var toolDisasters = []disaster{
	edit("saved by vim", "vim", "-N", "-u", "NONE", "-i", "NONE", "-es", "+%s/command:.*/command: NEW/", "+wq", "a.yaml"),
	edit("saved by vim, which keeps a backup", "vim", "-N", "-u", "NONE", "-i", "NONE", "-es", "+set backup backupskip= backupcopy=no", "+%s/command:.*/command: NEW/", "+wq", "a.yaml"),
	edit("saved by vim in place", "vim", "-N", "-u", "NONE", "-i", "NONE", "-es", "+set backupcopy=yes", "+%s/command:.*/command: NEW/", "+wq", "a.yaml"),
	edit("sed -i", "sed", "-i", "s/command:.*/command: NEW/", "a.yaml"),
	edit("sed -i with a backup", "sed", "-i.bak", "s/command:.*/command: NEW/", "a.yaml"),
	edit("perl -i", "perl", "-i", "-pe", "s/command:.*/command: NEW/", "a.yaml"),
	edit("cp", "cp", "TOP/new/a.yaml", "a.yaml"),
	edit("mv", "mv", "TOP/new/a.yaml", "a.yaml"),
	edit("install", "install", "-m", "0644", "TOP/new/a.yaml", "a.yaml"),
	edit("cat >", "sh", "-c", "cat TOP/new/a.yaml >a.yaml"),
	edit("dd in blocks of one byte", "dd", "if=TOP/new/a.yaml", "of=a.yaml", "bs=1"),
	edit("rsync", "rsync", "-a", "TOP/new/", "."),
	edit("rsync in place", "rsync", "-a", "--inplace", "TOP/new/", "."),
	edit("rsync, all at the end", "rsync", "-a", "--delay-updates", "TOP/new/", "."),
	edit("tar", "sh", "-c", "tar -C TOP/new -cf - a.yaml | tar -xf -"),
	{name: "saved by nano", tool: "nano", do: func(d *scene) {
		needTool(d.t, "script")
		for _, v := range []string{"edited", "sh"} {
			// ^W finds the line, ^K cuts it; then the new one, ^O and ^X.
			d.typed("\x17command\r\x01\x0b  command: ["+v+"]\r\x0f\r\x18", "Exit", "script", "-qec", "nano --ignorercfiles a.yaml", "/dev/null")
			d.whole(v, "sh", "sh")
		}
	}},
	{name: "git checkout of another branch", tool: "git", do: func(d *scene) {
		d.repository()
		for range 5 {
			d.tool("git", "checkout", "-q", "edited")
			d.whole("edited", "edited", "edited")
			d.tool("git", "checkout", "-q", "sh")
			d.whole("sh", "sh", "sh")
		}
	}},
	{name: "git checkout of a branch without manifests, noticed in time", tool: "git", do: func(d *scene) {
		// They are absent: they count as that when it has lasted.
		d.repository()
		d.tool("git", "checkout", "-q", "none")
		d.tool("git", "checkout", "-q", "edited")
		d.whole("edited", "edited", "edited")
	}},
	{name: "git stash, reset and clean", tool: "git", do: func(d *scene) {
		d.repository()
		d.write("a.yaml", manifestOf("a", "edited"))
		d.write("new.yaml", named("new"))
		d.tool("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "stash", "-q")
		d.whole("sh", "sh", "sh")
		d.tool("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "stash", "pop", "-q")
		d.whole("edited", "sh", "sh")
		d.tool("git", "reset", "-q", "--hard")
		d.tool("git", "clean", "-q", "-f", "-d", "-x")
		d.whole("sh", "sh", "sh")
	}},
	{name: "disk full while git checks out", tool: "git", root: true, poll: often, do: func(d *scene) {
		d.must(unix.Mount("tmpfs", d.m, "tmpfs", 0, "size=2m,mode=755"))
		d.fill(d.m, "sh")
		d.whole("sh", "sh", "sh")
		d.repository()
		// Full but for what the first of the files takes.
		d.must(os.WriteFile(d.at(".ballast"), nil, 0o600))
		f, err := os.OpenFile(d.at(".ballast"), os.O_WRONLY, 0)
		d.must(err)
		block := make([]byte, 4096)
		for err == nil {
			_, err = f.Write(block)
		}
		d.must(f.Close())
		if !errors.Is(err, unix.ENOSPC) {
			d.t.Fatalf("%v, expected a full disk", err)
		}
		if out, err := d.try("git", "checkout", "-q", "edited"); err == nil {
			d.t.Fatalf("git found room: %s", out)
		}
		d.must(os.Remove(d.at(".ballast")))
		d.must(errors.Join(os.RemoveAll(d.at(".git/index.lock"))))
		d.tool("git", "checkout", "-q", "-f", "edited")
		d.whole("edited", "edited", "edited")
		d.must(unix.Unmount(d.m, unix.MNT_DETACH))
		d.whole("sh", "sh", "sh")
	}},
	{name: "rsync --delete from a directory that is empty for a moment", tool: "rsync", do: func(d *scene) {
		d.fill(filepath.Join(d.top, "source"), "edited")
		d.must(os.Mkdir(filepath.Join(d.top, "empty"), 0o755))
		d.tool("rsync", "-a", "--delete", d.top+"/empty/", ".")
		d.tool("rsync", "-a", "--delete", d.top+"/source/", ".")
		d.whole("edited", "edited", "edited")
	}},
}

// The limits of inotify are the user namespace's: this one has none left, then
// some. Everything is found by polling meanwhile, and notified of again after.
func TestSourceLimits(t *testing.T) {
	if os.Getenv(inChild) == "" {
		t.Parallel()
	}
	if !child(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS) {
		return
	}
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		x := disaster{name: limit, poll: often, do: func(d *scene) {
			set := func(n int) {
				d.must(os.WriteFile("/proc/sys/user/"+limit, []byte(fmt.Sprint(n)), 0o644))
			}
			defer set(1000)
			set(0)
			// The watches are made anew, and there are none to be had.
			d.must(errors.Join(os.Rename(d.m, d.m+"2"), os.Rename(d.m+"2", d.m)))
			d.must(errors.Join(os.Rename(d.m, d.m+"2"), os.Mkdir(d.m, 0o755)))
			d.noticed(desired.ReasonDirectoryReplaced)
			if why := d.dir.Degraded(); !strings.Contains(why, "inotify") {
				d.t.Errorf("degraded: %q", why)
			}
			d.must(errors.Join(os.Remove(d.m), os.Rename(d.m+"2", d.m)))
			d.write("a.yaml", manifestOf("a", "edited"))
			d.whole("edited", "sh", "sh")
			set(1000)
			for deadline := time.Now().Add(time.Minute); d.dir.Degraded() != ""; time.Sleep(often) {
				if time.Now().After(deadline) {
					d.t.Fatalf("still degraded: %s", d.dir.Degraded())
				}
			}
			d.write("b.yaml", manifestOf("b", "edited"))
			d.whole("edited", "edited", "sh")
		}}
		// One after the other: they are of the whole process.
		t.Run(limit, func(t *testing.T) { x.run(t, false) })
	}
}
