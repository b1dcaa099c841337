// SPDX-License-Identifier: Apache-2.0

// Command fileops does all that programs do with files, in the directory that is
// its argument, and prints what came of it. It is run on the host and in a
// sandbox: both must print the same and leave the same.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 3 && os.Args[2] == "user" {
		asUser()
		return
	}
	if err := os.Chdir(os.Args[1]); err != nil {
		say("chdir", err)
		os.Exit(1)
	}
	for _, part := range []func(){contents, names, attributes, xattrs, mapped, unlinked, large, holes, locks, pipe, socket, special, permissions} {
		part()
	}
}

// say prints a result. Errors are printed as their number, without a path.
func say(what string, results ...any) {
	for i, r := range results {
		if err, ok := r.(error); ok {
			var errno syscall.Errno
			if errors.As(err, &errno) {
				results[i] = unix.ErrnoName(errno)
			}
		}
	}
	fmt.Printf("%s: %v\n", what, results)
}

func write(name, text string, flags int) error {
	f, err := os.OpenFile(name, flags, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func put(name string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func read(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return "error " + fmt.Sprint(errors.Is(err, os.ErrNotExist))
	}
	return string(b)
}

func contents() {
	say("create", write("file", "one", os.O_CREATE|os.O_EXCL|os.O_WRONLY))
	say("create again", write("file", "one", os.O_CREATE|os.O_EXCL|os.O_WRONLY))
	say("append", write("file", " two", os.O_APPEND|os.O_WRONLY), read("file"))
	say("write over", write("file", "ONE", os.O_RDWR), read("file"))
	say("truncate", os.Truncate("file", 4), read("file"))
	say("extend", os.Truncate("file", 6), []byte(read("file")))
	say("open truncated", write("trunc", "old and long", os.O_CREATE|os.O_WRONLY), write("trunc", "new", os.O_TRUNC|os.O_WRONLY), read("trunc"))
	say("missing", write("nosuch", "", os.O_WRONLY))
	say("directory", write(".", "", os.O_WRONLY), write("file/x", "", os.O_WRONLY))
	say("create without right", write("secret", "s", os.O_CREATE|os.O_WRONLY), os.Chmod("secret", 0), read("secret"))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	say("big", put("big", big, 0o600), read("big") == string(big))
	f, err := os.OpenFile("big", os.O_RDWR, 0)
	say("open", err)
	_, err = f.WriteAt([]byte("middle"), 2<<20)
	b := make([]byte, 6)
	_, err2 := f.ReadAt(b, 2<<20)
	say("middle", err, err2, string(b), unix.Fallocate(int(f.Fd()), 0, 0, 5<<20))
	st, err := f.Stat()
	say("allocated", st.Size(), err, f.Close(), os.Truncate("big", 1<<20))
}

func names() {
	say("mkdir", os.Mkdir("dir", 0o750), os.Mkdir("dir", 0o750), os.Mkdir("sticky", 0o777), os.Chmod("sticky", 0o777|os.ModeSticky), os.MkdirAll("a/b/c/d", 0o755))
	say("rename over", put("new", []byte("new"), 0o600), put("old", []byte("old"), 0o600), unix.Rename("new", "old"), read("old"), read("new"))
	say("rename into", unix.Rename("old", "dir/moved"), read("dir/moved"))
	say("rename directory", put("a/b/c/d/deep", []byte("deep"), 0o600), unix.Rename("a/b", "dir/b"), read("dir/b/c/d/deep"))
	say("rename into itself", unix.Rename("dir", "dir/b/x"))
	say("rename over full", unix.Rename("a", "dir"))
	say("exchange", put("x", []byte("x"), 0o600), put("y", []byte("y"), 0o600), unix.Renameat2(unix.AT_FDCWD, "x", unix.AT_FDCWD, "y", unix.RENAME_EXCHANGE), read("x"), read("y"))
	say("link", os.Link("file", "hard"), os.Link("file", "hard"), os.Link("dir/moved", "dir/b/hard"), os.Link("dir", "hard-dir"), read("dir/b/hard"))
	say("link of a renamed", unix.Rename("dir/b", "dir/b2"), os.Link("dir/b2/c/d/deep", "deep"), read("deep"))
	say("link of a replaced", put("r1", []byte("1"), 0o600), put("r2", []byte("2"), 0o600), unix.Rename("r1", "r2"), unix.Rename("r2", "r3"), os.Link("r3", "r4"), read("r4"))
	st, err := os.Stat("file")
	say("links", st.Sys().(*syscall.Stat_t).Nlink, err)
	say("symlink", os.Symlink("dir/moved", "soft"), os.Symlink("nowhere", "dangling"), os.Symlink("x", "soft"), read("soft"), read("dangling"), os.Symlink("loop", "loop"), read("loop"))
	to, err := os.Readlink("soft")
	say("readlink", to, err)
	say("link of a link", unix.Linkat(unix.AT_FDCWD, "soft", unix.AT_FDCWD, "soft2", 0), read("soft2"))
	say("long target", os.Symlink(strings.Repeat("t", 4000), "long"))
	to, err = os.Readlink("long")
	say("long target", len(to), err)
	say("long name", os.Mkdir(strings.Repeat("n", 255), 0o700), os.Mkdir(strings.Repeat("n", 256), 0o700))
	say("odd names", os.Mkdir("\n\xff \\", 0o700), os.Mkdir("ünï", 0o700))
	say("remove", unix.Rmdir("dir"), unix.Unlink("dir"), unix.Rmdir("file"), unix.Unlink("nosuch"), unix.Rmdir("a"), unix.Unlink("trunc"))
}

func attributes() {
	say("chmod", unix.Chmod("x", 0o4751), unix.Chmod("dir", 0o2770), unix.Chmod("nosuch", 0))
	say("chown", os.Lchown("y", 1234, 5678), os.Lchown("soft", 11, 12), os.Lchown("x", 13, -1))
	st, err := os.Lstat("x")
	say("mode after chown", st.Mode(), err, unix.Chmod("x", 0o4751))
	say("below set-group-ID", os.Chown("dir", 0, 77), unix.Chmod("dir", 0o2770), put("dir/below", nil, 0o600), os.Mkdir("dir/belowdir", 0o700))
	for _, n := range []string{"dir/below", "dir/belowdir", "y", "soft"} {
		st, err := os.Lstat(n)
		s := st.Sys().(*syscall.Stat_t)
		say("stat "+n, s.Uid, s.Gid, st.Mode(), err)
	}
	when := time.Unix(1_000_000_000, 123_456_789)
	say("utimes", os.Chtimes("file", when, when.Add(time.Hour)), os.Chtimes("dir", when, when))
	ts := []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}}
	say("utimes of a link", unix.UtimesNanoAt(unix.AT_FDCWD, "soft", ts, unix.AT_SYMLINK_NOFOLLOW))
	for _, n := range []string{"file", "dir", "soft"} {
		st, err := os.Lstat(n)
		say("mtime", st.ModTime().UnixNano(), err)
	}
	var fs unix.Statfs_t
	say("statfs", unix.Statfs(".", &fs), fs.Bsize > 0, fs.Blocks > 0, fs.Namelen)
}

func xattrs() {
	big := bytes.Repeat([]byte("v"), 2000)
	say("setxattr", unix.Setxattr("y", "user.a", []byte("value"), 0), unix.Setxattr("y", "user.a", nil, unix.XATTR_CREATE), unix.Setxattr("y", "user.b", big, 0),
		unix.Setxattr("dir", "user.d", []byte("d"), 0), unix.Setxattr("y", "user.c", nil, 0), unix.Removexattr("y", "user.c"), unix.Removexattr("y", "user.c"))
	buf := make([]byte, 4096)
	n, err := unix.Getxattr("y", "user.a", buf)
	say("getxattr", string(buf[:n]), err)
	n, err = unix.Getxattr("y", "user.b", nil)
	say("size", n, err)
	_, err = unix.Getxattr("y", "user.b", buf[:10])
	say("small buffer", err)
	_, err = unix.Getxattr("y", "user.none", buf)
	say("no attribute", err)
	n, err = unix.Listxattr("y", buf)
	say("list", strings.Count(string(buf[:n]), "user."), err)
}

func mapped() {
	say("prepare", put("map", bytes.Repeat([]byte("-"), 8192), 0o600))
	f, err := os.OpenFile("map", os.O_RDWR, 0)
	say("open", err)
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	say("mmap", err)
	copy(m[4090:], "mapped write")
	say("seen by read", unix.Msync(m, unix.MS_SYNC), strings.Contains(read("map"), "mapped write"))
	_, err = f.WriteAt([]byte("by write"), 100)
	say("seen in the map", err, string(m[100:108]))
	say("unmap", unix.Munmap(m), f.Close())
	f, err = os.Open("map")
	m, err2 := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_PRIVATE)
	say("private", err, err2, string(m[100:108]))
	_, err = unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_WRITE, unix.MAP_SHARED)
	say("map to write what is open to read", err, f.Close())
}

func unlinked() {
	f, err := os.OpenFile("gone", os.O_RDWR|os.O_CREATE, 0o600)
	say("open", err, os.Remove("gone"))
	_, err = f.WriteString("still here")
	b := make([]byte, 10)
	_, err2 := f.ReadAt(b, 0)
	say("unlinked", err, err2, string(b), f.Truncate(5), f.Chmod(0o644), f.Chown(3, 4), f.Sync())
	st, err := f.Stat()
	say("stat", st.Size(), st.Mode(), st.Sys().(*syscall.Stat_t).Uid, err, f.Close())
	say("another one", put("gone", []byte("second"), 0o600), read("gone"))
}

func large() {
	say("mkdir", os.Mkdir("many", 0o755))
	for i := range 5000 {
		if err := put(fmt.Sprintf("many/file-with-a-name-%d", i), nil, 0o600); err != nil {
			say("create", i, err)
			return
		}
	}
	entries, err := os.ReadDir("many")
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.Name()] = e.Type().IsRegular()
	}
	say("readdir", len(entries), len(seen), seen["file-with-a-name-4999"], err)
	d, err := os.Open("many")
	first, err2 := d.Readdirnames(10)
	_, err3 := d.Seek(0, 0)
	all, err4 := d.Readdirnames(-1)
	say("again", err, len(first), err2, err3, len(all), err4, d.Close())
	for i := 10; i < 5000; i++ {
		if err := os.Remove(fmt.Sprintf("many/file-with-a-name-%d", i)); err != nil {
			say("remove", i, err)
			return
		}
	}
}

func holes() {
	f, err := os.OpenFile("sparse", os.O_RDWR|os.O_CREATE, 0o644)
	say("create", err)
	_, err = f.WriteAt([]byte("end"), 64<<20)
	b := make([]byte, 3)
	_, err2 := f.ReadAt(b, 32<<20)
	st, err3 := f.Stat()
	say("hole", err, err2, b, st.Size(), err3, f.Close())
}

func locks() {
	f, err := os.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o644)
	g, err2 := os.Open("lock")
	say("open", err, err2, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB),
		unix.Flock(int(f.Fd()), unix.LOCK_UN), unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	say("fcntl", unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1}), f.Close(), g.Close())
}

func pipe() {
	say("mkfifo", unix.Mkfifo("fifo", 0o600), unix.Mkfifo("fifo", 0o600))
	got := make(chan string)
	go func() { got <- read("fifo") }()
	say("through", put("fifo", []byte("piped"), 0), <-got)
	st, err := os.Lstat("fifo")
	say("stat", st.Mode(), err, os.Remove("fifo"))
}

func socket() {
	l, err := net.Listen("unix", "sock")
	say("bind", err)
	if err != nil {
		return
	}
	_, err = net.Listen("unix", "sock")
	say("bind again", err)
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("hello"))
			c.Close()
		}
	}()
	c, err := net.Dial("unix", "sock")
	b := make([]byte, 5)
	n, err2 := c.Read(b)
	say("connect", err, string(b[:n]), err2, c.Close(), l.Close())
}

func special() {
	say("whiteout", unix.Mknod("whiteout", unix.S_IFCHR|0o600, 0))
	say("mknod a file", unix.Mknod("node", unix.S_IFREG|0o604, 0))
	st, err := os.Lstat("node")
	say("stat", st.Mode(), err)
}

func permissions() {
	say("prepare", os.Mkdir("closed", 0o700), os.Mkdir("users", 0o777), os.Chmod("users", 0o777), put("users/roots", []byte("r"), 0o644), put("closed/f", nil, 0o666))
	cmd := exec.Command("/proc/self/exe", os.Args[1], "user")
	cmd.Stdout = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1001}}
	say("user", cmd.Run())
}

// asUser is what somebody else than root may.
func asUser() {
	say("read", write("closed/f", "", os.O_RDONLY), write("secret", "", os.O_RDONLY), write("users/roots", "", os.O_RDONLY))
	say("write", write("users/roots", "x", os.O_WRONLY), write("root", "x", os.O_CREATE|os.O_WRONLY))
	say("create", write("users/mine", "mine", os.O_CREATE|os.O_WRONLY), os.Mkdir("users/dir", 0o700), os.Symlink("x", "users/soft"))
	say("mine", os.Chmod("users/mine", 0o600), os.Chown("users/mine", 0, 0), os.Chmod("users/roots", 0o777), os.Chown("users/roots", 1000, 1001))
	for _, n := range []string{"users/mine", "users/dir", "users/soft"} {
		st, err := os.Lstat(n)
		s := st.Sys().(*syscall.Stat_t)
		say("owner", s.Uid, s.Gid, st.Mode(), err)
	}
	say("remove", unix.Rmdir("closed"), unix.Unlink("closed/f"))
}
