// SPDX-License-Identifier: Apache-2.0

// Package companion finds the programs that come with sandboxctl, the sentry and the
// gofer, and checks that they are of its release before one of them is executed.
package companion
