// SPDX-License-Identifier: Apache-2.0

// Command probe is run inside sandboxes by the isolation test, as the
// application or by exec. It prints as JSON what it sees and what it can do;
// the test compares that with lists of what is allowed. It is built by the test
// and is not part of the product.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// args says what there is on the host that must not be reached.
type args struct {
	// Canary is a file of the host outside of every served tree.
	Canary string `json:"canary"`
	// Abstract is the name of an abstract socket somebody listens on there.
	Abstract string `json:"abstract"`
	// Port is a TCP port of the host's loopback that somebody listens on.
	Port int `json:"port"`
	// Tag makes the names of files of this run its own.
	Tag string `json:"tag"`
	// Hold keeps the probe running after it has printed.
	Hold bool `json:"hold"`
}

// report is what is printed, by subject.
type report map[string][]string

func (r report) add(subject, format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	if !slices.Contains(r[subject], line) {
		r[subject] = append(r[subject], line)
	}
}

// result describes the outcome of an attempt.
func result(err error) string {
	if err == nil {
		return "yes"
	}
	if errno, ok := err.(unix.Errno); ok {
		return unix.ErrnoName(errno)
	}
	var errno unix.Errno
	for e := err; e != nil; {
		if n, ok := e.(unix.Errno); ok {
			errno = n
			break
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			return e.Error()
		}
		e = u.Unwrap()
	}
	return unix.ErrnoName(errno)
}

func (r report) try(what string, err error) { r.add("try", "%s: %s", what, result(err)) }

func main() {
	// Before anything of the runtime opens a descriptor.
	fds := openFiles()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: probe ARGS")
		os.Exit(2)
	}
	// It tries what would do harm on a host.
	if b, err := os.ReadFile("/proc/version"); err != nil || !strings.Contains(string(b), "gvisor") {
		fmt.Fprintf(os.Stderr, "probe: this is not a sandbox: %s (%v)\n", b, err)
		os.Exit(3)
	}
	switch os.Args[1] {
	case "euid": // executed from a set-user-ID copy
		fmt.Println(os.Geteuid())
		return
	case "chroot":
		fmt.Println(leaveChroot(os.Getenv("CANARY")))
		return
	}
	var a args
	if err := json.Unmarshal([]byte(os.Args[1]), &a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	r := report{"fd": fds}
	r.process()
	r.files()
	r.network(&a)
	r.escapes(&a)
	r.volume(&a)
	r.kernel()
	for _, lines := range r {
		slices.Sort(lines)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		os.Exit(1)
	}
	for a.Hold {
		// Not select{}, which is a deadlock to the runtime.
		time.Sleep(time.Hour)
	}
}

// openFiles lists the descriptors of this process with where they lead.
func openFiles() []string {
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return []string{err.Error()}
	}
	defer unix.Close(dir)
	var out []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err != nil || n <= 0 {
			return out
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if name == fmt.Sprint(dir) {
				continue
			}
			link := make([]byte, 4096)
			n, err := unix.Readlink("/proc/self/fd/"+name, link)
			out = append(out, fmt.Sprintf("%s %s %v", name, link[:max(n, 0)], err))
		}
	}
}
