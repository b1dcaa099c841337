// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"slices"
)

// change does one thing to the host and returns when it was acknowledged.
func (h *powerHost) change() error {
	service := services[h.random.IntN(len(services))]
	switch h.random.IntN(10) {
	case 0, 1, 2:
		return h.apply(service, "Always", "exec sleep 1000000")
	case 3:
		return h.remove(service)
	case 4, 5, 6:
		h.job++
		return h.apply(fmt.Sprintf("job-%d", h.job), []string{"Never", "OnFailure"}[h.job%2], "true")
	case 7:
		return h.remove(fmt.Sprintf("job-%d", 1+h.random.IntN(h.job+1)))
	case 8:
		return h.writeUnsynced(service)
	default:
		_, err := h.m.try("systemctl kill -s KILL --kill-whom=main sandboxctl; sandboxctl restart "+service+" || :", commandDeadline)
		return err
	}
}

func (h *powerHost) promise(name string) *promise {
	p := h.names[name]
	if p == nil {
		p = &promise{texts: map[string]bool{"": true}}
		p.service = slices.Contains(services, name)
		h.names[name] = p
	}
	return p
}

// apply applies a manifest that is another one each time.
func (h *powerHost) apply(name, restartPolicy, command string) error {
	return h.applyText(name, manifest(name, h.variant(), command, restartPolicy))
}

func (h *powerHost) applyText(name, text string) error {
	p := h.promise(name)
	p.texts[text] = true
	_, err := h.m.try("sandboxctl apply -f - <<'EOF'\n"+text+"EOF", commandDeadline)
	if err == nil {
		p.texts = map[string]bool{text: true}
	}
	return err
}

// remove removes a manifest by the verb for that.
func (h *powerHost) remove(name string) error {
	p := h.promise(name)
	if p.texts[""] && len(p.texts) == 1 {
		return nil
	}
	p.texts[""] = true
	p.uid, p.completed = "", false
	_, err := h.m.try("sandboxctl delete "+name, commandDeadline)
	if err == nil {
		p.texts = map[string]bool{"": true}
	}
	return err
}

// writeUnsynced writes a manifest as an editor or a shell does that does not
// sync: after a cut it may be as before, new, empty, half or nothing but zeros.
func (h *powerHost) writeUnsynced(name string) error {
	p := h.promise(name)
	text := manifest(name, h.variant(), "exec sleep 1000000", "Always")
	p.texts[text], p.texts[anything] = true, true
	file := "/etc/sandboxctl/manifests/" + name + ".yaml"
	_, err := h.m.try("cat >"+file+" <<'EOF'\n"+text+"EOF", commandDeadline)
	return err
}

// anything stands for whatever a file can hold that was not synced.
const anything = "anything"

func (h *powerHost) variant() string { return fmt.Sprint(h.random.Uint32()) }
