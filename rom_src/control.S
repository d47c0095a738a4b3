# SPDX-License-Identifier: GPL-2.0-or-later
#
# Control registers.

	.text

.if CALLS_ALL
	.global native_SetCR0
native_SetCR0:
	mov %eax, %cr0
	ret

	.global native_SetCR2
native_SetCR2:
	mov %eax, %cr2
	ret

	.global native_SetCR3
native_SetCR3:
	mov %eax, %cr3
	ret

	.global native_SetCR4
native_SetCR4:
	mov %eax, %cr4
	ret

	.global native_GetCR0
native_GetCR0:
	mov %cr0, %eax
	ret

	.global native_GetCR2
native_GetCR2:
	mov %cr2, %eax
	ret

	.global native_GetCR3
native_GetCR3:
	mov %cr3, %eax
	ret

	.global native_GetCR4
native_GetCR4:
	mov %cr4, %eax
	ret

	.global native_CLTS
native_CLTS:
	clts
	ret
.endif
