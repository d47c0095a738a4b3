# SPDX-License-Identifier: GPL-2.0-or-later
#
# Page-table updates, put off: the entry is stored at once, since the guest reads its own tables, and
# what waits in the queue is only the news of it.
#
# Instructions from entry to the caller's next one, ret included, with the entry in linear-mapping
# slot 0 (tests/rom_src counts them):
#
#	SetPxE, entry not present before	17
#	SetPxE, present before			21
#	UpdatePxE				20
#	AllocatePage, ReleasePage		13, 14
#
# Interrupts may come between any two instructions and may make any call, drains included; there
# is no cli.  What is weak: a handler that maps anew the very entry whose clearing it interrupted
# finds nothing to invalidate, so the old translation stays until the interrupted caller invalidates,
# as it will; an NMI handler that updates page tables is safe in the queue but may still find CR3 and
# its cached copy apart.  All this is for a machine with one processor; several.S is for the others.
#
# With OMIT_FLUSH, a symbol for tests, the news is thrown away: a guest must then notice that its
# updates had no effect, or the host's shadow is not one.  With UNANNOUNCED no page is ever announced
# and every store is trapped again, news or no news.

	.include "queue.inc"

.if FLAVOUR_BATCHING
	.section .text.hot, "ax"

	.global queue_SetPxE
queue_SetPxE:				# EAX = value, EDX = entry, ECX = flags
	testb $ENTRY_PRESENT, (%edx)
	mov %eax, (%edx)			# a mov leaves the flags alone
	jnz 3f
	call 1f
1:	pop %eax
	QUEUE_FRESH 1b

# The guest has stored the entry, so what it was before is not to be known: take the worst.
# 64-bit entries come here too; a record names the first of the two words.
	.global queue_UpdatePxE
queue_UpdatePxE:			# EAX = entry, EDX = flags
	mov %edx, %ecx
	mov %eax, %edx
3:	call 2f
2:	pop %eax
	IF_FAULT_PAGE %eax, queue_header-2b, 4f
	QUEUE_DOWNGRADE 2b
.if !VISIBILITY_STRICT
4:	QUEUE_FRESH 2b
.endif

# The stores and their order are the native ones; the entry's old state has to be asked first.
	.global queue_SetPxELong
queue_SetPxELong:			# EDX:EAX = value, ECX = entry, stack = flags
	testb $ENTRY_PRESENT, (%ecx)
	jnz 2f
	call native_SetPxELong
	mov %ecx, %edx
	call 1f
1:	pop %eax
	QUEUE_FRESH 1b
2:	call native_SetPxELong
	mov %ecx, %eax
	mov 4(%esp), %edx
	jmp queue_UpdatePxE

# From here on the host need not trap stores to the page: each of them will be told.  A page beyond
# 4 GiB does not fit a record; not announced it stays trapped, slow but right.  The clone's source is
# not passed on: the host reads the page itself, which holds the copy already.
	.global queue_AllocatePage
queue_AllocatePage:			# EAX = frame, EDX = flags, ...
.ifndef UNANNOUNCED
	cmp $FRAME_LIMIT, %eax
	jae 2f
	shl $12, %eax
	and $PAGE_FLAGS, %edx
	lea RECORD_ALLOCATE(%eax,%edx,4), %edx
	call 1f
1:	pop %eax
	ENQUEUE %edx, %eax, %ecx, queue_header-1b
2:
.endif
	ret

# A table that goes away takes translations with it, unless its entries were cleared one by one,
# which the ROM does not remember: a downgrade.
	.global queue_ReleasePage
queue_ReleasePage:			# EAX = frame, EDX = flags
	cmp $FRAME_LIMIT, %eax
	jae 2f
	shl $12, %eax
	and $PAGE_FLAGS, %edx
	lea RECORD_RELEASE(%eax,%edx,4), %edx
	call 1f
1:	pop %eax
	ENQUEUE %edx, %eax, %ecx, queue_header-1b
	SAY_DOWNGRADE %eax, 1b
2:	ret
.endif
