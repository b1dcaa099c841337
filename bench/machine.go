// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says what the figures were measured on.
type machine struct {
	At         time.Time         `json:"at"`
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	MemoryMiB  int64             `json:"memoryMiB"`
	Kernel     string            `json:"kernel"`
	System     string            `json:"system"`
	Filesystem string            `json:"filesystem"`
	LoadBefore string            `json:"loadBefore"`
	LoadAfter  string            `json:"loadAfter"`
	Versions   map[string]string `json:"versions"`
}

func describeMachine(bin, work string) machine {
	m := machine{At: time.Now().UTC().Truncate(time.Second), Processors: runtime.NumCPU(), LoadBefore: load(), Versions: map[string]string{}}
	m.Processor = valueIn("/proc/cpuinfo", "model name", ":")
	m.System = strings.Trim(valueIn("/etc/os-release", "PRETTY_NAME", "="), `"`)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		kib, _ := field(string(text), "MemTotal:") // 0 says that it is not known
		m.MemoryMiB = kib / 1024
	}
	m.Filesystem = firstLine(exec.Command("stat", "--file-system", "--format", "%T", work))
	for name, args := range map[string][]string{
		sandboxctlName: {filepath.Join(bin, "sandboxctl"), "--version"},
		"podman":       {"podman", "--version"}, "runc": {"runc", "--version"}, "s6": {"s6-svscan", "-V"},
	} {
		if v := firstLine(exec.Command(args[0], args[1:]...)); v != "" {
			m.Versions[name] = v
		}
	}
	// runsc's own version is set by its build rules, which a Go build does not have.
	if info, err := buildinfo.ReadFile(filepath.Join(bin, runscName)); err == nil {
		for _, d := range info.Deps {
			if d.Path == "gvisor.dev/gvisor" {
				m.Versions[runscName] = "gVisor " + d.Version
			}
		}
		if info.Main.Path == "gvisor.dev/gvisor" {
			m.Versions[runscName] = "gVisor " + info.Main.Version
		}
	}
	return m
}

// firstLine is what a command prints first, "" if it can't be run.
func firstLine(cmd *exec.Cmd) string {
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// valueIn is what stands behind a name in a file of names and values.
func valueIn(path, name, separator string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
