// SPDX-License-Identifier: Apache-2.0

// Package names says what sandboxes on networks are called, and whom a sandbox sees: the
// others on the networks that both have joined. From that come the answers of launcher/dns
// and the files hosts and resolv.conf of a sandbox, so that they can't disagree.
//
// A sandbox has its name and its aliases on each network that it has joined, and the names
// of the sets that it is a member of, which all members share. On the network front the
// sandbox db is db, db.front and db.front.internal. The last is what the search list of
// resolv.conf leads to. A name that belongs to a sandbox is never given to another one that
// has it as an alias: an author could take the place of a database by an alias.
//
// Everything is a function of values.
package names
