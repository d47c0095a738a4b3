# SPDX-License-Identifier: GPL-2.0-or-later
#
# The calls of queue.S and ring.S for a machine with several processors: each queues in a home of its
# own, and has its own idea of CR3, of the fault page and of the linear mappings 1 to 3.
#
# The ROM has no memory that is different for each processor, and asking for its number would be
# an exit.  What does tell processors apart, for nothing, is where their descriptor tables are.  Two
# never have the same task state segment, since LTR refuses a busy one: so the GDT and the task
# register together name a processor.  A home keeps the key of whose it is; a processor that finds its
# key nowhere, at first and when it has changed either, asks the host for its home, one ring.  What is
# weak: processors that share a GDT and have not loaded a task register are one to this code.
#
# `queue_downgrade` is one word for all.  A processor invalidates what others have changed as well
# (a shootdown), and must not skip that as long as any of them has something of the kind queued.  So
# InvalPage and FlushTLB are those of ring.S, and look for no home.
#
# Instructions as in queue.S, for the first processor; each one further has two more:
#
#	SetPxE, entry not present before	28
#	SetPxE, present before			34
#	UpdatePxE				33
#	AllocatePage, ReleasePage		26, 29
#
# A task may be interrupted here and go on on another processor: its record is then in the queue of
# the one that it left, where every drain finds it, and the word that tells of it is everybody's.

	.include "queue.inc"

.if FLAVOUR_BATCHING
	.section .text.hot, "ax"

# -> \key, which no other processor has; \other is spent.
	.macro READ_KEY key, other
	sub $8, %esp
	str (%esp)				# two bytes, and six behind them
	sgdt 2(%esp)
	pop \key
	pop \other
	add \other, \key
	.endm

# -> EAX = this processor's home.  All else is kept but flags.
	.global find_home
find_home:
	push %ecx
	READ_KEY %ecx, %eax
	call 1f
1:	pop %eax
	.irp number, 0, 1, 2, 3, 4, 5, 6, 7
.if \number < QUEUE_HOMES
	cmp %ecx, queue_header + HOME_KEY + \number * HOME_STRIDE - 1b(%eax)
	jne 2f
	lea queue_header + \number * HOME_STRIDE - 1b(%eax), %eax
	pop %ecx
	ret
2:
.endif
	.endr

# Interrupts are off, so that the key is of the processor that rings.  A home that is taken over
# forgets what its owner before INIT left there.
	push %edx
	pushfl
	cli
	READ_KEY %ecx, %eax
	mov $DOORBELL_FIND_HOME, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	sub $1, %eax
	adc $0, %eax				# refused: the first home is as good as any
	imul $HOME_STRIDE, %eax, %eax
	call 3f
3:	pop %edx
	lea queue_header - 3b(%edx,%eax), %eax
	cmpl $0, HOME_KEY(%eax)
	jne 4f
	movl $DEFERRABLE_EAGER, HOME_DEFERRABLE(%eax)
	movl $0, HOME_CR3(%eax)
	movl $0, HOME_SLOTS + 1 * SLOT_SIZE + SLOT_BYTES(%eax)
	movl $0, HOME_SLOTS + 2 * SLOT_SIZE + SLOT_BYTES(%eax)
	movl $0, HOME_SLOTS + 3 * SLOT_SIZE + SLOT_BYTES(%eax)
4:	mov %ecx, HOME_KEY(%eax)
	popfl
	pop %edx
	pop %ecx
	ret

	.global several_SetPxE
several_SetPxE:				# EAX = value, EDX = entry, ECX = flags
	testb $ENTRY_PRESENT, (%edx)
	mov %eax, (%edx)
	jnz changed
fresh:					# EDX = entry
	call find_home
fresh_here:				# EAX = home
.ifdef OMIT_FLUSH
	ret
.else
	TO_RECORD %edx, %eax, 0, 8f
7:	ENQUEUE %edx, %eax, %ecx, 0, lock
	ret
8:	call several_other_slot
	jnc 7b
	jmp ring_update_entry
.endif

	.global several_UpdatePxE
several_UpdatePxE:			# EAX = entry, EDX = flags
	mov %edx, %ecx
	mov %eax, %edx
changed:				# EDX = entry, ECX = flags
	call find_home
	IF_FAULT_PAGE %eax, 0, fresh_here
.ifdef OMIT_FLUSH
	ret
.else
.if VISIBILITY_STRICT
	test %ecx, HOME_DEFERRABLE(%eax)
	jz 9f
.endif
6:	TO_RECORD %edx, %eax, 0, 8f
7:	ENQUEUE %edx, %eax, %ecx, 0, lock
	call 1f
1:	pop %ecx
	SAY_DOWNGRADE %ecx, 1b
	ret
8:	call several_other_slot
	jnc 7b
	jmp ring_update_entry
.if VISIBILITY_STRICT
9:	call 6b
	jmp ring_flush
.endif
.endif

	.global several_SetPxELong
several_SetPxELong:			# EDX:EAX = value, ECX = entry, stack = flags
	testb $ENTRY_PRESENT, (%ecx)
	jnz 2f
	call native_SetPxELong
	mov %ecx, %edx
	jmp fresh
2:	call native_SetPxELong
	mov %ecx, %eax
	mov 4(%esp), %edx
	jmp several_UpdatePxE

	.global several_AllocatePage
several_AllocatePage:			# EAX = frame, EDX = flags, ...
.ifndef UNANNOUNCED
	cmp $FRAME_LIMIT, %eax
	jae 2f
	shl $12, %eax
	and $PAGE_FLAGS, %edx
	lea RECORD_ALLOCATE(%eax,%edx,4), %edx
	call find_home
	ENQUEUE %edx, %eax, %ecx, 0, lock
2:
.endif
	ret

	.global several_ReleasePage
several_ReleasePage:			# EAX = frame, EDX = flags
	cmp $FRAME_LIMIT, %eax
	jae 2f
	shl $12, %eax
	and $PAGE_FLAGS, %edx
	lea RECORD_RELEASE(%eax,%edx,4), %edx
	call find_home
	ENQUEUE %edx, %eax, %ecx, 0, lock
	call 1f
1:	pop %ecx
	SAY_DOWNGRADE %ecx, 1b
2:	ret

# Interrupts are off until the home and the processor agree.
	.global several_SetCR3
several_SetCR3:				# EAX = value
	mov %eax, %ecx
	pushfl
	cli
	call find_home
	mov %ecx, HOME_CR3(%eax)
	mov $DOORBELL_SET_CR3, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	test %eax, %eax
	jnz 2f
	mov %ecx, %cr3
2:	popfl
	ret

	.global several_GetCR3
several_GetCR3:				# -> EAX
	pushfl
	cli
	call find_home
	mov HOME_CR3(%eax), %eax
	popfl
	test %eax, %eax
	jz 2f
	ret
2:	mov %cr3, %eax
	ret

.if VISIBILITY_STRICT
	.global several_SetLazyMode
several_SetLazyMode:			# EAX = mode
	mov %eax, %edx
	call find_home
	cmp $LAZY_MMU, %edx
	je 2f
	cmpl $DEFERRABLE_EAGER, HOME_DEFERRABLE(%eax)
	je 3f
	movl $DEFERRABLE_EAGER, HOME_DEFERRABLE(%eax)
	call 1f
1:	pop %edx
	cmpl $0, queue_downgrade - 1b(%edx)
	jne ring_flush
	ret
2:	movl $DEFERRABLE_LAZY, HOME_DEFERRABLE(%eax)
3:	ret
.endif
.endif
