// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"slices"
	"time"

	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/links"
)

// closed are links that rules were for, that are still there, and that no record knows any
// more. Nothing passes them: a sandbox whose record was lost or can't be read would
// otherwise reach all that the host reaches. A sandbox that has just ended may be among
// them until the kernel has removed its link.
func (k *Keeper) closed(rules *firewall.Ruleset) ([]string, error) {
	known := map[string]bool{}
	for i := range rules.Sandboxes {
		for j := range rules.Sandboxes[i].Attachments {
			known[rules.Sandboxes[i].Attachments[j].Link] = true
		}
	}
	had := map[string]bool{}
	for _, link := range k.judged.Closed {
		had[link] = !known[link]
	}
	for i := range k.judged.Sandboxes {
		for j := range k.judged.Sandboxes[i].Attachments {
			link := k.judged.Sandboxes[i].Attachments[j].Link
			had[link] = !known[link]
		}
	}
	if k.unknown == nil {
		k.unknown = map[string]time.Time{}
	}
	var out []string
	if host, err := look(had); err != nil {
		return nil, err
	} else if host != nil {
		for i := range host.Links {
			if name := host.Links[i].Name; had[name] {
				out = append(out, name)
			}
		}
	}
	for link := range k.unknown {
		if !slices.Contains(out, link) {
			delete(k.unknown, link)
		}
	}
	for _, link := range out {
		if since, told := k.unknown[link]; !told {
			k.unknown[link] = time.Now()
		} else if !since.IsZero() && time.Since(since) > k.lookEvery {
			k.log.Warn("nothing passes a link of a sandbox that no record knows", "link", link)
			k.unknown[link] = time.Time{} // once
		}
	}
	slices.Sort(out)
	return out, nil
}

// look finds the links of the host, if any is asked for.
func look(had map[string]bool) (*links.Host, error) {
	for _, asked := range had {
		if asked {
			return links.Look()
		}
	}
	return nil, nil
}

// closing says whether a link is closed.
func (k *Keeper) closing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.installed != nil && len(k.installed.Closed) > 0
}
