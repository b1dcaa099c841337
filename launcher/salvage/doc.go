// SPDX-License-Identifier: Apache-2.0

// Package salvage finds what lives of sandboxes without their records: after a record
// was damaged (Examine), or after a state directory was removed, replaced or not
// mounted (SearchHost, Strays). It looks at processes, their open files, arguments
// and cgroups. It changes nothing and signals nobody.
package salvage
