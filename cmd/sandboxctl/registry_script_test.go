// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// cmdRealRegistry drives Debian's docker-registry. Without arguments it starts one, and
// sets what verbs and a daemon need: $REGISTRY, its address, $SANDBOXCTL_REGISTRIES and
// $DOCKER_CONFIG.
//
//	realregistry push VAR NAME LAYER...   an image of directories; its digest is in $VAR then
//	realregistry stop|start               kill it, and start it again
//	realregistry cut N                    kill it when it has sent N bytes
//	realregistry hold N                   have it send N bytes and no more; held waits for that
//	realregistry idle                     wait until nobody is connected
//	realregistry login PASSWORD           what clients know as the password, which is "secret"
//	realregistry said TEXT                fails unless its log has the text
//	realregistry plain                    another one without TLS and password, at port $PLAIN
func cmdRealRegistry(ts *testscript.TestScript, neg bool, args []string) {
	st := ts.Value(keyDaemon).(*scriptState)
	if neg {
		ts.Fatalf("unsupported: ! realregistry")
	}
	if len(args) == 0 {
		dir := ts.MkAbs("registry")
		ts.Check(os.Mkdir(dir, 0o755))
		st.registry = newRealRegistry(dir, ts.Fatalf)
		ts.Defer(st.registry.close)
		ts.Setenv("REGISTRY", st.registry.host())
		ts.Setenv("SANDBOXCTL_REGISTRIES", st.registry.registries())
		ts.Setenv("DOCKER_CONFIG", dir+"/docker")
		return
	}
	r, args := st.registry, append(args, "", "")
	switch args[0] {
	case "push":
		pushDirectories(ts, r, args[1], args[2], args[3:len(args)-2])
	case "stop":
		r.stop()
	case "start":
		r.start()
	case "cut":
		r.cutAfter(number(ts, args[1]))
	case "hold":
		r.holdAfter(number(ts, args[1]))
	case "held":
		eventually(ts, "as much was sent", r.exhausted)
	case "idle":
		eventually(ts, "nobody is connected", func() bool { return r.connections() == 0 })
	case "login":
		r.login(args[1])
	case "said":
		if said := r.said(); !strings.Contains(said, args[1]) {
			ts.Fatalf("it did not say %q:\n%s", args[1], said)
		}
	case "plain":
		cmd, addr := r.serve("plain.yml", "http: {addr: \"127.0.0.1:0\", secret: x}\n")
		ts.Defer(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		ts.Setenv("PLAIN", addr[strings.LastIndexByte(addr, ':')+1:])
	default:
		ts.Fatalf("realregistry %s", args[0])
	}
}

func pushDirectories(ts *testscript.TestScript, r *realRegistry, variable, name string, dirs []string) {
	var layers [][]byte
	for _, dir := range dirs {
		layers = append(layers, it.TarOf(ts.MkAbs(dir)))
	}
	config := it.Config(map[string]any{"Cmd": []string{"sleep", "1000"}, "Env": []string{"PATH=/bin"}}, layers...)
	ts.Setenv(variable, it.Digest(r.push(name, config, layers...)))
}

func number(ts *testscript.TestScript, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	ts.Check(err)
	return n
}

// eventually waits until something is so.
func eventually(ts *testscript.TestScript, what string, is func() bool) {
	for deadline := time.Now().Add(untilTimeout); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %s", untilTimeout, what)
		}
	}
}
