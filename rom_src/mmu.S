# SPDX-License-Identifier: GPL-2.0-or-later
#
# Page tables as the bare machine has them: the processor walks what is in memory, so a store is an
# update, and there is nothing to announce.

	.set ENTRY_PRESENT, 1
	.set CR4_PGE, 0x80

	.text

.if CALLS_ALL
	.global native_SetPxE
native_SetPxE:				# EAX = value, EDX = entry, ECX = flags
	mov %eax, (%edx)
	ret
.endif

# 64-bit entries take two stores, and the walker may look in between.
#
#   old not present: the high half first; the entry comes to life, whole, with the low half.
#   new not present: the low half first; the entry is dead before its frame number changes.
#   both present, high halves equal: the low half is all there is to do.
#   both present otherwise: cmpxchg8b, since no order of two stores is right.  Going through
#     not-present would be a trap when the entry maps the stack, or this ROM.
#
# Every processor with 64-bit entries has cmpxchg8b.  No lock prefix: one processor.
.if CALLS_ALL | FLAVOUR_BATCHING		# queue.S has use for it
	.global native_SetPxELong
native_SetPxELong:			# EDX:EAX = value, ECX = entry, stack = flags
	testb $ENTRY_PRESENT, (%ecx)
	jz 1f
	test $ENTRY_PRESENT, %al
	jz 2f
	cmp %edx, 4(%ecx)
	jne 3f
	mov %eax, (%ecx)
	ret
1:	mov %edx, 4(%ecx)
	mov %eax, (%ecx)
	ret
2:	mov %eax, (%ecx)
	mov %edx, 4(%ecx)
	ret
3:	push %ebx
	push %esi
	mov %ecx, %esi
	mov %eax, %ebx
	mov %edx, %ecx
	mov (%esi), %eax
	mov 4(%esi), %edx
4:	cmpxchg8b (%esi)			# ECX:EBX, unless the walker has set A or D meanwhile
	jne 4b
	mov %esi, %ecx				# the caller in queue.S still needs it
	pop %esi
	pop %ebx
	ret
.endif

.if CALLS_ALL
# Calls that tell of something the bare machine has no use for.  They are offered as calls
# nevertheless, so that the identity flavour shows what calling costs; and each has an entry of its
# own, so that a monitor which counts calls by their address can tell them apart.
	.macro DOES_NOTHING name
	.global native_\name
native_\name:
	ret
	.endm

	DOES_NOTHING UpdatePxE		# the guest has stored the entry
	DOES_NOTHING UpdatePxELong
	DOES_NOTHING AllocatePage
	DOES_NOTHING ReleasePage
	DOES_NOTHING SetLinearMapping
	DOES_NOTHING SetLazyMode
	DOES_NOTHING SetInitialAPState	# the guest goes on to start the processor in real mode
	DOES_NOTHING MachineToPhysical	# EAX = frame -> EAX: machine and physical pages are one
	DOES_NOTHING PhysicalToMachine

	.global native_InvalPage
native_InvalPage:			# EAX = virtual address
	invlpg (%eax)
	ret

# Loading CR3 spares global pages; switching CR4.PGE off and on does not.
	.global native_FlushTLB
native_FlushTLB:			# EAX = what to flush
	test $TLB_FLUSH_GLOBAL, %al
	jz 1f
	mov %cr4, %eax
	test $CR4_PGE, %al
	jz 1f
	mov %eax, %edx
	and $0xffffff7f, %edx
	mov %edx, %cr4
	mov %eax, %cr4
	ret
1:	mov %cr3, %eax
	mov %eax, %cr3
	ret
.endif
