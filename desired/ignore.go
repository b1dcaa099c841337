// SPDX-License-Identifier: Apache-2.0

package desired

func (sc *scanner) ignored(string, bool) bool { return false }
