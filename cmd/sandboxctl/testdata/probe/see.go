// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// process is what this process is.
func (r report) process() {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		r.add("status", "%s", result(err))
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			r.add("status", "%s %s", key, strings.Join(strings.Fields(value), " "))
		}
	}
	groups, err := os.Getgroups()
	r.add("status", "ids %d %d %d %d %v %v", os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups, err)
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	r.add("status", "no_new_privs %d %v", nnp, err)
	seccomp, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	r.add("status", "seccomp %d %v", seccomp, err)

	for _, e := range os.Environ() {
		r.add("env", "%s", e)
	}
	for i, name := range []string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"} {
		// By prlimit: the runtime raises NOFILE and hides that from getrlimit.
		var lim unix.Rlimit
		err := unix.Prlimit(0, i, nil, &lim)
		r.add("rlimit", "%s %d %d %v", name, int64(lim.Cur), int64(lim.Max), err)
	}
	cwd, err := os.Getwd()
	r.add("cwd", "%s %v", cwd, err)
	var u unix.Utsname
	err = unix.Uname(&u)
	text := func(b []byte) string { return unix.ByteSliceToString(b) }
	r.add("uname", "%s %s %s %s %v", text(u.Sysname[:]), text(u.Nodename[:]), text(u.Release[:]), text(u.Domainname[:]), err)
	links, err := filepath.Glob("/proc/self/ns/*")
	if err != nil {
		r.add("ns", "%v", err)
	}
	for _, l := range links {
		target, err := os.Readlink(l)
		r.add("ns", "%s %v", target, err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/comm")
	r.add("processes", "%d %v", len(procs), err)
	for _, p := range procs {
		b, err := os.ReadFile(p)
		r.add("processes", "%s %v", strings.TrimSpace(string(b)), err)
	}
}

// files is what there is of filesystems.
func (r report) files() {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.add("mount", "%s", result(err))
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		r.add("mount", "%s %s %s %s", f[4], f[3], f[5], strings.Join(strings.Fields(after), " "))
	}
	err = filepath.WalkDir("/dev", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			r.add("dev", "%s %s", p, result(err))
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			r.add("dev", "%s %s", p, result(err))
			return nil
		}
		link, _ := os.Readlink(p)
		r.add("dev", "%s %s %d:%d %s", p, e.Type(), unix.Major(st.Rdev), unix.Minor(st.Rdev), link)
		return nil
	})
	if err != nil {
		r.add("dev", "%v", err)
	}
	for _, dir := range []string{"/proc", "/sys", "/proc/sys", "/proc/sys/kernel", "/"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			r.add("list", "%s %s", dir, result(err))
		}
		for _, e := range entries {
			if strings.Trim(e.Name(), "0123456789") != "" && !strings.HasPrefix(e.Name(), "made-") {
				r.add("list", "%s %s", filepath.Join(dir, e.Name()), e.Type())
			}
		}
	}
}

// network is what there is of networks, without sending anything to anybody
// but loopback.
func (r report) network(a *args) {
	ifs, err := net.Interfaces()
	if err != nil {
		r.add("interface", "%s", result(err))
	}
	for _, i := range ifs {
		addrs, err := i.Addrs()
		r.add("interface", "%s %s %v %v", i.Name, i.Flags, addrs, err)
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "unix", "packet", "netlink", "route"} {
		b, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			r.add("socket", "%s %s", table, result(err))
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		r.add("socket", "%s %d", table, max(0, len(lines)-1))
	}
	for name, addr := range map[string]string{"loopback": "127.0.0.1", "loopback6": "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(addr, fmt.Sprint(a.Port)))
		if err == nil {
			c.Close()
		}
		r.try(name+" service of the host", err)
	}
	abstract, err := net.Dial("unix", "@"+a.Abstract)
	if err == nil {
		abstract.Close()
	}
	r.try("abstract socket of the host", err)
	// Connecting a datagram socket looks for a route and sends nothing.
	for name, addr := range map[string]string{"metadata service": "169.254.169.254:80", "internet": "192.0.2.1:80", "internet6": "[2001:db8::1]:80"} {
		c, err := net.Dial("udp", addr)
		if err == nil {
			c.Close()
		}
		r.try("route to the "+name, err)
	}
	for name, s := range map[string][3]int{
		"raw": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "raw6": {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		"packet": {unix.AF_PACKET, unix.SOCK_RAW, 0}, "vsock": {unix.AF_VSOCK, unix.SOCK_STREAM, 0}, "alg": {unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		"netfilter": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, "audit": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT},
		"uevent": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT}, "bluetooth": {unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
		"can": {unix.AF_CAN, unix.SOCK_RAW, 1}, "xdp": {unix.AF_XDP, unix.SOCK_RAW, 0}, "key": {unix.AF_KEY, unix.SOCK_RAW, 2}, "icmp": {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
	} {
		fd, err := unix.Socket(s[0], s[1], s[2])
		if err == nil {
			unix.Close(fd)
		}
		r.try("socket "+name, err)
	}
}

// regular reads a file and says whether it is the canary.
func regular(path string) error {
	b, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(b), "canary") {
		err = errors.New("another file")
	}
	return err
}
