// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/world"
)

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
		v := verbs{&world.Host{Stdin: strings.NewReader(""), Stdout: os.Stdout, Stderr: t.Output()}}
		got, err := v.editText(t.Context(), file, []byte("old\n"), func(text []byte) error {
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
