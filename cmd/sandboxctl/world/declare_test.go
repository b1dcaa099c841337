// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile/declared"
)

// A volume whose document was deleted after its making was decided is not made, and who
// deletes it waits for one that is just being made.
func TestDeclareOfDeleted(t *testing.T) {
	t.Parallel()
	path, manifests := t.TempDir(), t.TempDir()
	const doc = "apiVersion: sandboxctl.dev/v1alpha1\nkind: Volume\nmetadata: {name: data}\n"
	file := filepath.Join(manifests, "v.yaml")
	if err := errors.Join(os.Chmod(path, 0o700), os.WriteFile(file, []byte(doc), 0o600)); err != nil {
		t.Fatal(err)
	}
	state, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	v := Volumes{State: state, Manifests: manifests}
	declare := func(a declared.Action) error { return v.Declare(t.Context(), &a) }
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, volume.Directory, name))
		return err == nil
	}
	if err := declare(declared.Action{Name: "data", Make: true, File: "v.yaml"}); err != nil || !there("data") {
		t.Errorf("declared: %v", err)
	}
	for _, a := range []declared.Action{{Name: "other", Make: true, File: "v.yaml"}, {Name: "other", Make: true, File: "none.yaml"}, {Name: "other", Make: true}} {
		if err := declare(a); err == nil || there("other") {
			t.Errorf("%+v: %v", a, err)
		}
	}
	// What is there already needs no document: a sandbox may give it a size.
	if err := declare(declared.Action{Name: "data"}); err != nil {
		t.Errorf("a size: %v", err)
	}
	if err := os.WriteFile(file, []byte(doc+"---\n"+doc[:len(doc)-len("data}\n")]+"late}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Nobody makes one while who deletes has the lock, and afterwards its document is gone.
	lock, err := lockVolumes(t.Context(), state, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- declare(declared.Action{Name: "late", Make: true, File: "v.yaml"}) }()
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || there("late") {
		t.Errorf("after the lock: %v", err)
	}
}
