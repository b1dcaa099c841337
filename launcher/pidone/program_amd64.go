// SPDX-License-Identifier: Apache-2.0

package pidone

import "sandboxctl.dev/launcher/onepage"

// text returns where the text of the init process begins.
func text() *byte

// instructions returns the text of the init process.
func instructions() []byte { return onepage.Text(text()) }
