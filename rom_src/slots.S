# SPDX-License-Identifier: GPL-2.0-or-later
#
# Where the guest maps physical memory linearly: what turns the address of an entry into a record.

	.include "queue.inc"

.if FLAVOUR_BATCHING
	.section .text.hot, "ax"

# Records hold 32-bit physical addresses, so a slot ends at 4 GiB and one that starts beyond is
# empty: entries there are told by their virtual address.  The size is 0 while the slot changes, so
# that an interrupt handler's update finds no slot rather than half of one.  What is weak: the update
# that was itself interrupted by a slot change; guests set their slots while they boot.  Slot 0 is
# the first thing that a guest sets once its call sites are patched.
	.global queue_SetLinearMapping
queue_SetLinearMapping:			# EAX = slot, EDX = start, ECX = pages, stack = first frame
.ifndef UNANNOUNCED
	test %eax, %eax
	jnz set_slot
	pushl 4(%esp)
	call set_slot
	pop %eax
adopt_tables:
	jmp ring_adopt_tables
.endif
set_slot:
	cmp $SLOTS, %eax
	jae 4f
	push %ebx
	push %esi
	shl $4, %eax
	call 1f
1:	pop %ebx
	lea slot0_start - 1b(%ebx,%eax), %ebx
fill_slot:
	movl $0, SLOT_BYTES(%ebx)
	mov %edx, SLOT_START(%ebx)
	mov 12(%esp), %esi			# two pushes and the return address above
	mov $FRAME_LIMIT, %eax
	sub %esi, %eax				# pages from there to 4 GiB
	jbe 3f
	cmp %eax, %ecx
	jbe 2f
	mov %eax, %ecx
2:	mov %esi, %eax
	shl $12, %eax
	or $RECORD_ENTRY, %eax
	mov %eax, SLOT_RECORD(%ebx)
	mov $0xffffffff, %eax			# all 4 GiB but the last byte
	cmp $FRAME_LIMIT, %ecx
	je 5f
	mov %ecx, %eax
	shl $12, %eax
5:	mov %edx, %ecx
	neg %ecx				# bytes from the start to the top of the linear space:
	jz 6f					# beyond them a slot would wrap and cover what it must not
	cmp %ecx, %eax
	jbe 6f
	mov %ecx, %eax
6:	mov %eax, SLOT_BYTES(%ebx)
3:	pop %esi
	pop %ebx
4:	ret

# The same where there are several processors.  All of them have slot 0, the others are each one's own.
	.global several_SetLinearMapping
several_SetLinearMapping:
	test %eax, %eax
	jz 7f
	cmp $SLOTS, %eax
	jae 4b
	push %ebx
	push %esi
	shl $4, %eax
	mov %eax, %ebx
	call find_home
	lea HOME_SLOTS(%eax,%ebx), %ebx
	jmp fill_slot
7:	pushl 4(%esp)
	call set_slot
	pop %eax
	push %ebx
	push %esi
	call 1f
1:	pop %ebx
	lea slot0_start - 1b(%ebx), %ebx
	mov %ebx, %esi
	mov $QUEUE_HOMES, %ecx
8:	dec %ecx
	jz 9f
	add $HOME_STRIDE, %esi
	movl $0, SLOT_BYTES(%esi)
	mov SLOT_START(%ebx), %eax
	mov %eax, SLOT_START(%esi)
	mov SLOT_RECORD(%ebx), %eax
	mov %eax, SLOT_RECORD(%esi)
	mov SLOT_BYTES(%ebx), %eax
	mov %eax, SLOT_BYTES(%esi)
	jmp 8b
9:	pop %esi
	pop %ebx
.ifdef UNANNOUNCED
	ret
.else
	jmp adopt_tables
.endif

# Slot 0 did not cover the entry; do the others?  EDX = its address less slot 0's start -> carry
# clear and EDX = record, or carry set and EDX = its address.  EAX is kept, ECX is not.
	.global queue_other_slot
queue_other_slot:
	push %ebx
	push %esi
	call 1f
1:	pop %esi
	lea slot0_start - 1b(%esi), %esi
other_slot:
	add SLOT_START(%esi), %edx
	mov $SLOTS - 1, %ecx
2:	add $SLOT_SIZE, %esi
	mov %edx, %ebx
	sub SLOT_START(%esi), %ebx
	cmp SLOT_BYTES(%esi), %ebx
	jb 3f
	dec %ecx
	jnz 2b
	stc
	jmp 4f
3:	add SLOT_RECORD(%esi), %ebx
	mov %ebx, %edx
	clc
4:	pop %esi
	pop %ebx
	ret

# The same in the home at EAX.
	.global several_other_slot
several_other_slot:
	push %ebx
	push %esi
	lea HOME_SLOTS(%eax), %esi
	jmp other_slot
.endif
