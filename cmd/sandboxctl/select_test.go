// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

func TestParseSelector(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"app": "web", "tier": "back", "empty": ""}
	for s, want := range map[string]bool{
		"app=web": true, "app==web": true, "app=api": false, "app!=api": true, "app!=web": false, "none!=x": true, "none=x": false,
		"app": true, "none": false, "!none": true, "!app": false, "empty=": true, "empty": true, "app=": false,
		"app=web,tier=back": true, "app=web, tier=front": false, "app,!none,tier!=front": true, "app=web,app=api": false,
	} {
		match, err := parseSelector(s)
		if err != nil || match(labels) != want {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := match(nil); got && strings.HasPrefix(s, "app") && !strings.HasPrefix(s, "app!") {
			t.Errorf("%s selects what has no labels", s)
		}
	}
	for _, bad := range []string{"", ",", "=x", "!", "a=b=c", "a in (b)", "app=web,", "!=x", "a b"} {
		var e *exit.Error
		if _, err := parseSelector(bad); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// -o is completed with what its verb takes.
func TestCompleteOutputs(t *testing.T) {
	t.Parallel()
	for verb, want := range map[string]string{
		"get": "wide json yaml manifest name", "events": "json", "plan": "json yaml", "ps": "json", "version": "json",
	} {
		var out strings.Builder
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: t.Output()}
		if code := a.run(t.Context(), []string{cobra.ShellCompNoDescRequestCmd, verb, "-o", ""}); code != 0 {
			t.Errorf("%s: exit code %d", verb, code)
		}
		offered, _, _ := strings.Cut(out.String(), ":")
		if got := strings.Join(strings.Fields(offered), " "); got != want {
			t.Errorf("%s: %q, expected %q", verb, got, want)
		}
	}
}

// An editor that saves nothing, rubbish, rubbish twice, or what is right.
func TestEditText(t *testing.T) {
	for name, c := range map[string]struct {
		editor, want string
		fails        bool
	}{
		"nothing saved":    {"true", "", false},
		"emptied":          {": >", "", false},
		"edited":           {"sed -i s/old/new/", "new\n", false},
		"arguments":        {"sh -c 'printf \"x y\\n\" > \"$0\"'", "x y\n", false},
		"wrong, then good": {"sh -c 'if grep -q ^#! \"$0\"; then echo good >\"$0\"; else echo bad >\"$0\"; fi'", "good\n", false},
		"wrong twice":      {"sed -i s/old/bad/", "", true},
		"fails":            {"false", "", true},
		"is missing":       {"/no/such/editor", "", true},
	} {
		t.Setenv("VISUAL", "")
		t.Setenv("EDITOR", c.editor)
		file := filepath.Join(t.TempDir(), "web.yaml")
		a := &app{stdin: strings.NewReader(""), stdout: os.Stdout, stderr: t.Output()}
		got, err := a.editText(t.Context(), file, []byte("old\n"), func(text []byte) error {
			if strings.Contains(string(text), "bad") {
				return errors.New("2 problems:\nit is bad")
			}
			return nil
		})
		if (err != nil) != c.fails || string(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
