// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Files are copied to and from every kind of root and volume, in a sandbox whose only
// program is the application.
func TestCopyRoots(t *testing.T) {
	requireHost(t)
	h := daemonHost(t)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	h.must(os.MkdirAll(filepath.Join(h.work, "src", "sub"), 0o755))
	h.must(os.WriteFile(filepath.Join(h.work, "src", "sub", "f"), data, 0o640))
	for _, d := range []string{"v1", "v2", "own"} {
		h.must(os.Mkdir(filepath.Join(h.work, d), 0o755))
	}
	h.must(os.CopyFS(filepath.Join(h.work, "own"), os.DirFS(filepath.Join(h.work, "rootfs"))))
	volume := "  volumes: [{name: v, mountPath: /mnt, hostPath: " + h.work + "/v1}]\n"
	for name, c := range map[string]struct{ root, spec, dir string }{
		"memory":   {"{dir: " + h.work + "/rootfs}", "  overlay: memory\n", "/"},
		"disk":     {"{dir: " + h.work + "/rootfs}", "  overlay: disk\n  overlaySize: 64Mi\n", "/"},
		"none":     {"{dir: " + h.work + "/own}", "  overlay: none\n", "/"},
		"direct":   {"{dir: " + h.work + "/rootfs}", "  overlay: memory\n  fileAccess: direct\n" + volume, "/mnt"},
		"volume":   {"{dir: " + h.work + "/rootfs}", strings.ReplaceAll(volume, "v1", "v2"), "/mnt"},
		"tmpfs":    {"{dir: " + h.work + "/rootfs}", "  volumes: [{name: t, mountPath: /mnt, tmpfs: {size: 16Mi}}]\n", "/mnt"},
		"emptydir": {"{dir: " + h.work + "/rootfs}", "  volumes: [{name: t, mountPath: /mnt, emptyDir: {size: 64Mi}}]\n", "/mnt"},
		"user":     {"{dir: " + h.work + "/rootfs}", "  overlay: memory\n  user: {uid: 1000, gid: 1000}\n  capabilities: {drop: [ALL]}\n", "/"},
	} {
		h.dropRoot(name, c.root, c.spec+"  terminationGracePeriod: 0s\n  command: [/bin/busybox, sh, -c, 'echo up; exec /bin/busybox sleep 1000']\n")
		h.firstLine(name, 1)
		cp := func(args ...string) {
			t.Helper()
			if out, err := h.command(append([]string{"cp", "-q"}, args...)...).CombinedOutput(); err != nil {
				t.Errorf("%s: cp %s: %v: %s", name, strings.Join(args, " "), err, out)
			}
		}
		cp(filepath.Join(h.work, "src"), name+":"+c.dir)
		back := filepath.Join(h.work, "back-"+name)
		cp(name+":"+filepath.Join(c.dir, "src"), back)
		got, err := os.ReadFile(filepath.Join(back, "sub", "f"))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		// Over what is there.
		cp(filepath.Join(h.work, "src"), name+":"+c.dir)
	}
}

// forwarded starts port-forward to a port of a sandbox, and returns the local address.
func (h *host) forwarded(t *testing.T, name string, port int) string {
	t.Helper()
	cmd := h.command("port-forward", name, fmt.Sprintf(":%d", port), "--address", "127.0.0.1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	h.must(err)
	h.must(cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	h.must(err)
	_, rest, _ := strings.Cut(line, "Forwarding from ")
	addr, _, _ := strings.Cut(rest, " ->")
	return addr
}

// Ports are forwarded in a namespace of the host too; and a guest that accepts hundreds of
// connections, and neither reads, answers nor closes them, keeps nobody from others.
func TestPortForwardNetns(t *testing.T) {
	requireHost(t)
	outerName, name := fmt.Sprintf("sbctl-%d-pfout", os.Getpid()), fmt.Sprintf("sbctl-%d-pfin", os.Getpid())
	outer := namedNetns(t, outerName)
	inner := namedNetns(t, name)
	wireUp(t, outer, inner, "/run/netns/"+name)
	h := daemonHost(t)
	const serve = "  terminationGracePeriod: 0s\n  command: [/bin/busybox, sh, -c, '/bin/busybox nc -ll -p 7 -e /bin/busybox cat & /bin/busybox nc -ll -p 8 -e /bin/busybox sleep 1000 & echo up; wait']\n"
	h.drop("echo", "  network: {mode: netns, netns: "+name+"}\n"+serve)
	h.drop("alone", serve)
	for _, s := range []string{"echo", "alone"} {
		h.firstLine(s, 1)
		echo, deaf := h.forwarded(t, s, 7), h.forwarded(t, s, 8)
		// Clients that go away at once, and leave the guest with what they have sent.
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				c, err := net.Dial("tcp", deaf)
				if err != nil {
					return // the queue is full: its guest is the one that suffers
				}
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			})
		}
		wg.Wait()
		h.until("an echo from "+s, func() bool { return echoes(echo) })
	}
}

// echoes says whether a server gives back what it gets, after the end of it.
func echoes(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience(20 * time.Second)))
	sent := bytes.Repeat([]byte("question "), 50_000)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	return err == nil && bytes.Equal(got, sent)
}
