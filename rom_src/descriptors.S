# SPDX-License-Identifier: GPL-2.0-or-later
#
# Descriptor tables and the task register.

	.text

.if CALLS_ALL
	.global native_SetGDT
native_SetGDT:				# EAX = address of limit and base, 6 bytes
	lgdt (%eax)
	ret

	.global native_SetIDT
native_SetIDT:
	lidt (%eax)
	ret

	.global native_GetGDT
native_GetGDT:				# EAX = where limit and base go
	sgdt (%eax)
	ret

	.global native_GetIDT
native_GetIDT:
	sidt (%eax)
	ret

	.global native_SetLDT
native_SetLDT:				# AX = selector
	lldt %ax
	ret

	.global native_SetTR
native_SetTR:
	ltr %ax
	ret

# The store forms leave the upper half of a register as the processor model likes: clear it first.
	.global native_GetLDT
native_GetLDT:				# -> EAX
	xor %eax, %eax
	sldt %ax
	ret

	.global native_GetTR
native_GetTR:
	xor %eax, %eax
	str %ax
	ret

# One entry of the GDT, an LDT or the IDT, in the order a plain memory copy has: low half first.
# An entry that is in use is torn for one instruction, natively too; guests change only such
# entries as nothing loads meanwhile.
	.macro WRITES_DESCRIPTOR name
	.global native_\name
native_\name:				# EAX = table, EDX = index, ECX = low, stack = high
	mov %ecx, (%eax,%edx,8)
	mov 4(%esp), %ecx
	mov %ecx, 4(%eax,%edx,8)
	ret
	.endm

	WRITES_DESCRIPTOR WriteGDTEntry
	WRITES_DESCRIPTOR WriteLDTEntry
	WRITES_DESCRIPTOR WriteIDTEntry

# The guest has stored the stack pointer in its TSS already, and the processor reads it there.
	.global native_UpdateKernelStack
native_UpdateKernelStack:		# EAX = selector, EDX = esp0
	ret
.endif
