// SPDX-License-Identifier: Apache-2.0

package wire

// ImageName is the program that pulls images, and ImageProtocol the version of what
// sandboxctl and it say to each other: arguments and reports (launcher/image).
const (
	ImageName     = "sandboxctl-image"
	ImageProtocol = 3
)
