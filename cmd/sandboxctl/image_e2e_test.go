// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// cmdMkImage makes an image of directories, a layer each:
//
//	mkimage docker|layout FILE|DIRECTORY LAYER...
func cmdMkImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: mkimage docker|layout PATH LAYER...")
	}
	var layers [][]byte
	for _, dir := range args[2:] {
		layers = append(layers, it.TarOf(ts.MkAbs(dir)))
	}
	config := it.Config(map[string]any{"Cmd": []string{"/bin/web"}, "User": "web", "Env": []string{"A=b"}}, layers...)
	path := ts.MkAbs(args[1])
	switch args[0] {
	case "docker":
		ts.Check(os.WriteFile(path, it.DockerArchive([]string{"web:v1"}, config, layers...), 0o644))
	case "layout":
		it.Layout(path, "v1", config, layers...)
	default:
		ts.Fatalf("mkimage %s", args[0])
	}
}

// cmdRegistry starts a registry that has no image, and answers in the way that the name of
// the image says. $REGISTRY is its address.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: registry")
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body := http.StatusNotFound, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`
		switch {
		case r.URL.Path == "/v2/":
			status = http.StatusOK
		case strings.Contains(r.URL.Path, "/denied/"):
			status, body = http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`
		case strings.Contains(r.URL.Path, "/limited/"):
			status, body = http.StatusTooManyRequests, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`
		case strings.Contains(r.URL.Path, "/broken/"):
			status, body = http.StatusServiceUnavailable, "<html>try later</html>"
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	ts.Defer(s.Close)
	ts.Setenv("REGISTRY", s.Listener.Addr().String())
}
