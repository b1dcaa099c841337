// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/launcher/dns"
	"sandboxctl.dev/launcher/firewall/others"
	"sandboxctl.dev/reconcile/attached"
)

// probeTime is how long all servers together may take to answer.
const probeTime = 3 * time.Second

// checkNames says whether sandboxes on networks find names and reach anybody, if there are
// such.
func checkNames(ctx context.Context, state string, sandboxes []actual.Observed) []finding {
	if !slices.ContainsFunc(sandboxes, func(o actual.Observed) bool { return len(o.Record.Attachments) > 0 }) {
		return nil
	}
	var out []finding
	switch taken, err := dns.Taken(); {
	case err != nil:
		out = append(out, finding{"names", levelWarning, err.Error()})
	case len(taken) > 0:
		out = append(out, finding{"names", levelError, fmt.Sprintf("a program of this host has port 53 of all addresses (%s), so that sandboxes on networks find no names: have it listen on addresses of its own, as `bind-interfaces` of dnsmasq does; `ss -lnptu 'sport = 53'` says which one it is", strings.Join(slices.Compact(taken), ", "))})
	}
	return append(out, checkServers(ctx), checkForwarding(state))
}

// checkForwarding says whether the firewall of another program drops what sandboxes send.
func checkForwarding(state string) finding {
	chains, err := others.Dropping(bridge.Table(state), nil)
	switch {
	case err != nil:
		return finding{"forwarding", levelWarning, err.Error()}
	case len(chains) > 0:
		return finding{"forwarding", levelWarning, attached.Dropped(chains)}
	}
	return finding{"forwarding", levelOK, "no other program drops what the host forwards"}
}

// checkServers asks the servers of the host.
func checkServers(ctx context.Context) finding {
	servers, err := (&dns.Upstreams{}).Servers()
	if err != nil {
		return finding{"names", levelWarning, fmt.Sprintf("%v: sandboxes on networks find no names of the world, unless network.dns.servers says whom to ask", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = dns.Probe(ctx, s) })
	}
	wg.Wait()
	var silent []string
	for i, err := range errs {
		if err != nil {
			silent = append(silent, fmt.Sprintf("%s: %v", servers[i], err))
		}
	}
	switch {
	case len(silent) == len(servers):
		return finding{"names", levelWarning, fmt.Sprintf("no server of %s answers (%s): sandboxes on networks find no names of the world", dns.ResolvConfPath, strings.Join(silent, "; "))}
	case len(silent) > 0:
		return finding{"names", levelWarning, fmt.Sprintf("not every server of %s answers (%s)", dns.ResolvConfPath, strings.Join(silent, "; "))}
	}
	return finding{"names", levelOK, fmt.Sprintf("%d servers of the host answer", len(servers))}
}
