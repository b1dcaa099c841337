// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/imagetest"
)

// This test binary is also the program.
func TestMain(m *testing.M) {
	if os.Args[0] == "takes memory" {
		os.Exit(takeMemory())
	}
	if os.Args[0] == "sandboxctl-image" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// start starts a pull as the daemon does.
func start(t *testing.T, state, ref string) (cmd *exec.Cmd, stdin io.WriteCloser, reports *json.Decoder) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe", image.PullVerb, state, "Always", ref, "", "")
	cmd.Args[0] = "sandboxctl-image"
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, stdin, json.NewDecoder(stdout)
}

// last is the result of a pull.
func last(t *testing.T, reports *json.Decoder) (out image.Report) {
	t.Helper()
	for {
		var next image.Report
		err := reports.Decode(&next)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out.Digest+out.Error != "" {
			t.Fatalf("%+v after the result", next)
		}
		out = next
	}
}

// A pull for the daemon tells of its result, and what it means that there is none.
func TestPullForDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	layer := imagetest.Tar(imagetest.File("a", "a"))
	config := imagetest.Config(nil, layer)
	other := bytes.Replace(config, []byte(runtime.GOARCH), []byte("s390x"), 1)
	for name, content := range map[string][]byte{
		"a.tar":    imagetest.DockerArchive([]string{"a:1"}, config, layer),
		"arch.tar": imagetest.DockerArchive([]string{"a:1"}, other, layer),
		"text.tar": []byte("text"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for ref, want := range map[string]image.Report{
		"archive:" + dir + "/a.tar":    {},
		"archive:" + dir + "/a.tar:no": {Error: "no tag", Code: image.CodeMissing},
		"local:none":                   {Error: "not in the store", Code: image.CodeMissing},
		"archive:" + dir + "/none.tar": {Error: "there is no file", Code: image.CodeMissing},
		"archive:" + dir:               {Error: "is not a regular file", Code: image.CodeRefused},
		"archive:" + dir + "/text.tar": {Error: "is not an archive", Code: image.CodeRefused},
		"archive:" + dir + "/arch.tar": {Error: "the image is for linux/s390x", Code: image.CodeRefused},
		"no name":                      {Error: "expected the name of an image", Code: image.CodeRefused},
		// A registry that is down may be up in a moment.
		"127.0.0.1:1/web": {Error: "can't be reached"},
	} {
		cmd, stdin, reports := start(t, dir+"/state", ref)
		defer stdin.Close()
		got := last(t, reports)
		err := cmd.Wait()
		if (got.Digest == "") == (want.Error == "") || !strings.Contains(got.Error, want.Error) || got.Code != want.Code || (err == nil) != (want.Error == "") {
			t.Errorf("%s: %+v, %v, expected %+v", ref, got, err, want)
		}
	}
	if found, err := filepath.Glob(dir + "/state/images/*.erofs"); err != nil || len(found) != 1 {
		t.Errorf("in the store: %v, %v", found, err)
	}
}

// A daemon that is killed leaves no pull: its end of the pipe is closed.
func TestPullEndsWithDaemon(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cmd, stdin, reports := start(t, t.TempDir(), silent.Addr().String()+"/web:1")
	asked, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	stdin.Close()
	if got := last(t, reports); got.Error == "" {
		t.Errorf("%+v", got)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it did not fail")
	}
}
