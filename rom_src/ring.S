# SPDX-License-Identifier: GPL-2.0-or-later
#
# The calls that may have to reach the host, and the ways to ring for it.
#
# A ring is one exit, and each drains the queue before its own work: so what forces a drain never
# costs an exit of its own on top.

	.include "queue.inc"

.if FLAVOUR_BATCHING
	.section .text.hot, "ax"

# EAX = function; ECX, its argument, is set already.  EAX comes back changed, nothing else does.
	.macro RING function
	mov $\function, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	.endm

# There was no slot for the record in EDX: hand it over in person.
	.global ring_queue_full
ring_queue_full:
	mov %edx, %ecx
	RING DOORBELL_QUEUE_FULL
	ret

# No slot of the linear mapping covers the entry at EDX: let the host find it.
	.global ring_update_entry
ring_update_entry:
	mov %edx, %ecx
	RING DOORBELL_UPDATE_ENTRY
	ret

# The guest calls for every store to a page table from now on: so tables that it made while it
# booted, which it never announces, need not be trapped any more.
	.global ring_adopt_tables
ring_adopt_tables:
	RING DOORBELL_ADOPT_TABLES
	ret

# The state is read here and now; the processor begins in it when the guest starts it up.
	.global ring_SetInitialAPState
ring_SetInitialAPState:			# EAX = state, EDX = APIC id
	push %edx
	push %eax
	mov %esp, %ecx
	RING DOORBELL_START_AP
	add $8, %esp
	ret

# The value of CR3 that maps nothing below the curtain's end is loaded without an exit.  Interrupts
# are off, lest a handler that switches tasks finds the curtain said to be down while it is up.
	.global ring_lower_curtain
ring_lower_curtain:
	call 1f
1:	pop %eax
	pushfl
	cli
	mov queue_curtain - 1b(%eax), %ecx
	test %ecx, %ecx
	jz 2f
	movl $0, queue_curtain - 1b(%eax)
	mov %ecx, %cr3
2:	popfl
	ret

# Where the shadow is in step and nothing queued takes anything away, there is no stale translation
# that could be dropped.  `out_of_step` is never 0 for a host that keeps no such promise.  Behind the
# curtain there is no translation at all.
	.global queue_InvalPage
queue_InvalPage:			# EAX = virtual address
	call 1f
1:	pop %edx
	mov queue_downgrade - 1b(%edx), %ecx
	or out_of_step - 1b(%edx), %ecx
	jnz 2f
	ret
2:	cmp $QUEUE_CURTAIN_END, %eax
	jae 3f
	testb $FEATURE_CURTAIN, features - 1b(%edx)
	jz 3f
	cmpl $0, queue_curtain - 1b(%edx)
	jne 3f
	ret
3:	mov %eax, %ecx
	RING DOORBELL_INVALIDATE_PAGE
	ret

	.global queue_FlushTLB
queue_FlushTLB:				# EAX = what to flush
	call 1f
1:	pop %edx
	mov queue_downgrade - 1b(%edx), %ecx
	or out_of_step - 1b(%edx), %ecx
	jnz 2f
	ret
2:	mov %eax, %ecx
	RING DOORBELL_FLUSH_TLB
	ret

# One exit as natively, but it drains the queue, and reading CR3 back costs none.  Interrupts are
# off from the note to the switch: a fault handler that asked for CR3 in between would mend the wrong
# tables, for ever.  A value that the host refuses goes to the processor, which knows what is due.
	.global queue_SetCR3
queue_SetCR3:				# EAX = value
	mov %eax, %ecx
	call 1f
1:	pop %edx
	pushfl
	cli
	mov %ecx, current_cr3 - 1b(%edx)
	RING DOORBELL_SET_CR3
	test %eax, %eax
	jnz 2f
	mov %ecx, %cr3
2:	popfl
	ret

# Until the first SetCR3 there is nothing to remember.  0 can mean that: were it the true value, the
# processor would say the same.
	.global queue_GetCR3
queue_GetCR3:				# -> EAX
	call 1f
1:	pop %edx
	mov current_cr3 - 1b(%edx), %eax
	test %eax, %eax
	jz 2f
	ret
2:	mov %cr3, %eax
	ret

.if VISIBILITY_STRICT
	.global ring_flush
ring_flush:
	RING DOORBELL_FLUSH
	ret

# Leaving MMU mode is where put-off updates come due; those that only give may wait on, since a
# fault finds them.  The mode changes first: a handler's update in between is then eager by itself.
# CPU mode puts nothing off.
	.global queue_SetLazyMode
queue_SetLazyMode:			# EAX = mode
	call 1f
1:	pop %edx
	cmp $LAZY_MMU, %eax
	je 2f
	cmpl $DEFERRABLE_EAGER, deferrable - 1b(%edx)
	je 3f
	movl $DEFERRABLE_EAGER, deferrable - 1b(%edx)
	cmpl $0, queue_downgrade - 1b(%edx)
	jne ring_flush
	ret
2:	movl $DEFERRABLE_LAZY, deferrable - 1b(%edx)
3:	ret
.endif
.endif
