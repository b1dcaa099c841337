// SPDX-License-Identifier: Apache-2.0

package setup

// namesAt is where a sandbox on networks is shown the names that it sees. No manifest can
// mount anything there, and nobody needs to make it in a root that can't be written.
const namesAt = "/dev/sandboxctl"

// showNames has /etc/hosts be one that changes while the sandbox runs: a link to a file in a
// directory, since a mount of a single file goes on showing what was replaced. A root that
// is a directory of the host has the files of its owner.
func (st *Setup) showNames() {
	root := &st.App().Root
	if _, own := st.ServedAt()["/etc/hosts"]; own || !root.Host && root.Image == nil {
		return
	}
	root.HostsAt = namesAt + "/hosts"
	st.AddBind(namesAt, Source{Names: true, ReadOnly: true})
}
