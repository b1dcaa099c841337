// SPDX-License-Identifier: Apache-2.0

// Package guest is what runs inside a sandbox before its application, if there
// are startContainer hooks: this program under another name (see Argv0), which
// runs the hooks and then becomes the application.
//
// It has the application's user, capabilities, environment and descriptors, and
// runs what its author wrote: nothing that it says is believed beyond that the
// start has failed.
package guest
