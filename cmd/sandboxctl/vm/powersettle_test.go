// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// observe writes down which jobs the host says have completed, which it must not
// take back.
func (h *powerHost) observe() error {
	list, err := h.m.trySandboxes()
	if err != nil {
		return err
	}
	for name, s := range list {
		if s.Phase == "Completed" {
			h.promise(name).completed = true
		}
	}
	return nil
}

// settle lets the host alone until it is as it should be, and checks what it has
// promised.
func (h *powerHost) settle() {
	h.t.Helper()
	texts := h.readManifests()
	h.m.until("converge", func() error { return h.converged(texts) })
	h.m.clean(fmt.Sprintf("cut %d", h.cuts))
	var again []string
	for name, starts := range h.starts() {
		p := h.promise(name)
		if p.completed && p.startsWhenCompleted > 0 && len(starts) != p.startsWhenCompleted {
			again = append(again, fmt.Sprintf("%s had completed and ran again: %d starts, were %d", name, len(starts), p.startsWhenCompleted))
		}
		if p.completed {
			p.startsWhenCompleted = len(starts)
		}
	}
	if len(again) > 0 {
		h.t.Fatalf("%s\n%s", h.m.explain(), strings.Join(again, "\n"))
	}
}

// readManifests are the manifests that a boot has found, by name. Each must be
// one that it may be. One that is damaged or has nothing in it, which only happens to a
// file that was not synced, is put right after a look at what its sandbox does meanwhile.
func (h *powerHost) readManifests() map[string]string {
	h.t.Helper()
	texts := map[string]string{}
	out := h.m.run(`cd /etc/sandboxctl/manifests && for f in *.yaml; do [ ! -e "$f" ] || echo "$f $(base64 -w0 <"$f")"; done`)
	for line := range strings.Lines(out) {
		file, content, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := base64.StdEncoding.DecodeString(content)
		must(h.t, err)
		name := strings.TrimSuffix(file, ".yaml")
		texts[name] = string(b)
	}
	for name, p := range h.names {
		text, exists := texts[name]
		switch {
		case !exists && p.texts[""]:
			p.texts, p.uid = map[string]bool{"": true}, ""
		case exists && text != "" && p.texts[text]:
			p.texts = map[string]bool{text: true}
		case exists && p.texts[anything]:
			texts[name] = h.mend(name)
		default:
			h.t.Fatalf("the manifest of %s is %q (it exists: %t), and may be\n%v", name, text, exists, p.texts)
		}
	}
	for name := range texts {
		if h.names[name] == nil {
			h.t.Fatalf("there is a manifest of %s, which nobody wrote", name)
		}
	}
	return texts
}

// mend looks at what a sandbox does whose manifest is damaged, which is to run
// with what it said before, and writes it anew.
func (h *powerHost) mend(name string) string {
	h.t.Helper()
	p := h.names[name]
	h.t.Logf("the manifest of %s, which was not synced, is damaged", name)
	if p.uid != "" {
		h.m.until(name+" runs with its last good manifest", func() error {
			if s := h.m.sandboxes()[name]; s.Phase != "Running" || s.UID != p.uid {
				return fmt.Errorf("it is %+v, its uid was %s", s, p.uid)
			}
			return nil
		})
	}
	text := manifest(name, h.variant(), "exec sleep 1000000", "Always")
	err := h.applyText(name, text)
	if err != nil && strings.Contains(err.Error(), "correct or remove it first") {
		// It is half a manifest, which apply leaves to people.
		_, err = h.m.try("cat >/etc/sandboxctl/manifests/"+name+".yaml <<'EOF'\n"+text+"EOF\nsync", commandDeadline)
		p.texts = map[string]bool{text: true}
	}
	if err != nil {
		h.t.Fatalf("%s\nmend %s: %v", h.m.explain(), name, err)
	}
	return text
}

// variantOf is what tells a manifest from others of its name.
var variantOf = regexp.MustCompile(`echo started (\d+) `)

// converged is nil if what runs is what the manifests say, with one start of the
// right one.
func (h *powerHost) converged(texts map[string]string) error {
	list, err := h.m.trySandboxes()
	if err != nil {
		return err
	}
	for name, s := range list {
		if texts[name] == "" {
			return fmt.Errorf("%s is there: %+v", name, s)
		}
	}
	starts := h.starts()
	var errs []error
	for name, text := range texts {
		s, p := list[name], h.names[name]
		if p.service != (s.Phase == "Running") || !p.service && s.Phase != "Completed" {
			errs = append(errs, fmt.Errorf("%s is %+v", name, s))
			continue
		}
		if p.uid != "" && p.uid != s.UID {
			h.t.Fatalf("%s has the uid %s and had %s: its record was lost", name, s.UID, p.uid)
		}
		p.uid, p.completed = s.UID, s.Phase == "Completed"
		if got := starts[name]; p.service && (len(got) == 0 || got[len(got)-1] != variantOf.FindStringSubmatch(text)[1]) {
			errs = append(errs, fmt.Errorf("%s was started as %v, its manifest is\n%s", name, got, text))
		}
	}
	return errors.Join(errs...)
}

// starts are the variants as which applications were started, by name.
func (h *powerHost) starts() map[string][]string {
	h.t.Helper()
	out := map[string][]string{}
	for line := range strings.Lines(h.m.run("cd /srv/sandboxctl/runs && grep -r . . || :")) {
		if name, variant, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "./")), ":started "); ok {
			out[name] = append(out[name], variant)
		}
	}
	return out
}

// removeAll removes all manifests and looks that nothing is left of anything.
func (h *powerHost) removeAll() {
	h.t.Helper()
	for name := range h.names {
		if err := h.remove(name); err != nil {
			h.t.Fatalf("remove %s: %v", name, err)
		}
	}
	h.m.until("all are gone", func() error {
		out, err := h.m.try(`sandboxctl get -o name 2>/dev/null
cd /var/lib/sandboxctl && find sandboxes trash requests damaged -mindepth 1 2>/dev/null
find . /etc/sandboxctl/manifests -name '.*' -type f
find /sys/fs/cgroup/sandboxctl -mindepth 1 -type d -not -name 'waiting.*'
pgrep -af '^sandboxctl-' | grep -v ' sandboxctl-waiting '; :`, commandDeadline)
		if err == nil && out != "" {
			err = fmt.Errorf("left: %s", out)
		}
		return err
	})
	h.m.clean("all were removed")
}
