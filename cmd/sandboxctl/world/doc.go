// SPDX-License-Identifier: Apache-2.0

// Package world is what the verbs see of a host: what its manifests say, what is on
// record and lives, and the plan that the daemon would make of both now. No daemon is
// asked. What all verbs need to say which sandboxes they are for is here too.
package world
