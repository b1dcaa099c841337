// SPDX-License-Identifier: Apache-2.0

// Package zone knows time zones: which names are those of one, their data, and the zone
// of the host. The data are those of the host, which are updated with it; where it has
// none they are those that Go's library has brought along.
package zone
