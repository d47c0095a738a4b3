# SPDX-License-Identifier: GPL-2.0-or-later
#
# Time: counters, the wall clock, and alarms in place of the interval timer.
#
# Reading costs no exit: the cycle counter is the time-stamp counter, and what must be known besides
# stands in the queue header, where the host has published it (vmi/clock.py).  Setting or
# cancelling an alarm is one ring.  There is nothing native to fall back on: without a host that
# serves alarms none of these is offered, and the guest keeps its own timers.

.if FLAVOUR_BATCHING & TIMER_CALLS
	.text

	.global timer_GetCycleFrequency
timer_GetCycleFrequency:		# -> EDX:EAX
	call 1f
1:	pop %ecx
	mov clock_frequency - 1b(%ecx), %eax
	mov clock_frequency + 4 - 1b(%ecx), %edx
	ret

# The guest's time stands still while it does not run, so nothing is ever stolen.
	.global timer_GetCycleCounter
timer_GetCycleCounter:			# EAX = counter -> EDX:EAX
	cmp $CYCLES_STOLEN, %eax
	je 1f
	rdtsc
	ret
1:	xor %eax, %eax
	xor %edx, %edx
	ret

# What the host reads lies on the stack, so that an interrupt handler's alarm has words of its own.
	.global timer_SetAlarm
timer_SetAlarm:				# EAX = flags, ECX:EDX = expiry, stack = period
	pushl 8(%esp)
	pushl 8(%esp)
	push %ecx
	push %edx
	push %eax
	mov %esp, %ecx
	mov $DOORBELL_SET_ALARM, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	add $20, %esp
	ret

	.global timer_CancelAlarm
timer_CancelAlarm:			# EAX = flags -> EAX
	mov %eax, %ecx
	mov $DOORBELL_CANCEL_ALARM, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	ret

# ((counter << shift) * multiplier >> 32) + the wall clock at counter 0.
	.global timer_GetWallclockTime
timer_GetWallclockTime:			# -> EDX:EAX
	push %ebx
	push %esi
	push %edi
	call 1f
1:	pop %esi
2:	mov clock_version - 1b(%esi), %edi
	rdtsc
	mov clock_shift - 1b(%esi), %ecx
	shld %cl, %eax, %edx
	shl %cl, %eax
	mov clock_multiplier - 1b(%esi), %ebx
	mov %edx, %ecx
	mul %ebx
	mov %ecx, %eax
	mov %edx, %ecx
	mul %ebx
	add %ecx, %eax
	adc $0, %edx
	add clock_wallclock - 1b(%esi), %eax
	adc clock_wallclock + 4 - 1b(%esi), %edx
	cmp clock_version - 1b(%esi), %edi
	jne 2b
	pop %edi
	pop %esi
	pop %ebx
	ret

	.global timer_WallclockUpdated
timer_WallclockUpdated:			# -> EAX
	call 1f
1:	pop %ecx
	xor %eax, %eax
	xchg %eax, clock_updated - 1b(%ecx)
	ret
.endif
