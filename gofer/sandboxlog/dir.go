// SPDX-License-Identifier: Apache-2.0

package sandboxlog

// Dir is the directory of a sandbox's logs, in its own directory. Only root may
// write it. In it each attempt has a directory of its own, which is given to the
// attempt's gofer. A gofer can be taken over, so what is in there is read and
// removed as untrusted, and no later attempt uses it.
const Dir = "logs"

// MaxEntries bounds how much of a log directory is looked at. The one of all
// attempts has three entries, unless an earlier version made it, which gave it to
// gofers.
const MaxEntries = 256
