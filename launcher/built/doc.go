// SPDX-License-Identifier: Apache-2.0

// Package built keeps what was built for a sandbox, as it was written down before the
// sandbox ran. Commands, checkpoints and a resumed create read it. A bundle's
// config.json, a link or the host policy may have changed since: what is derived from
// them again is another sandbox, and a command that is started by it could have a user
// and capabilities that nobody allowed.
package built
