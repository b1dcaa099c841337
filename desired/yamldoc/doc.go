// SPDX-License-Identifier: Apache-2.0

// Package yamldoc reads YAML and JSON from people it does not trust, within
// fixed limits, and knows the place of every value. It knows nothing of what the
// documents are about: a Schema says what one looks like.
//
// The input is hostile. Its size, the depth of its brackets and the number of its
// values are bounded before the parser sees a byte. Anchors, aliases, tags and
// directives are refused. So is what YAML accepts and no author means: keys given
// twice, unquoted words that are booleans to some parsers, text after the end of
// a document.
package yamldoc
