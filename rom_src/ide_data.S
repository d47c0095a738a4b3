# SPDX-License-Identifier: GPL-2.0-or-later
#
# The blocks of the two IDE channels (vmi/ide.py).  A word that straddles the end of the second one's
# buffer is read whole.

.if FLAVOUR_BATCHING
	.bss
	.balign 16
	.global ide_channels
ide_channels:
	.skip 2 * CHANNEL_BLOCK_SIZE
	.skip 4
.endif
