# SPDX-License-Identifier: GPL-2.0-or-later
#
# The local APIC and the I/O delay.

	.text

# The 2006 proposal passes an APIC register's address, Linux passes its offset.  With the address
# the native access is one move.  With the offset the ROM must know at which virtual address the
# guest maps the APIC, and the interface never says: it is outside every linear mapping, the guest's
# own fixed address is a constant of its build, finding it in the page tables would cost a CR3 read
# (an exit) per access, and the MSR way exists only in x2APIC mode, which no guest of this age
# turns on.  A guess that is wrong writes to somebody's memory.
#
# So the batching flavour rings for the access, where the host has said that it answers, and rings
# only where something is to be done: registers that change by nothing but the guest's stores are read
# in the queue header, where the host mirrors them, and an interrupt is ended by clearing a word
# there, unless another one waits for that (vmi/queue.py).  Offset or address, the low twelve bits tell.
.if FLAVOUR_BATCHING
	.macro RING_APIC
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	.endm

	.global apic_APICRead
apic_APICRead:				# EAX = offset or address -> EAX
	mov %eax, %ecx
	and $0xff0, %ecx
	call 1f
1:	pop %edx
	shr $4, %ecx
	cmp $64, %ecx
	jae 2f
	bt %ecx, apic_mirrored - 1b(%edx)
	jnc 2f
	mov apic_registers - 1b(%edx,%ecx,4), %eax
	ret
2:	shl $4, %ecx
	mov $DOORBELL_APIC_READ, %eax
	RING_APIC
	ret

	.global apic_APICWrite
apic_APICWrite:				# EAX = offset or address, EDX = value
	and $0xff0, %eax
	cmp $0xb0, %eax
	jne 2f
	call 1f
1:	pop %ecx
	xor %eax, %eax
	xchg %eax, apic_eoi - 1b(%ecx)
	test %eax, %eax
	jnz 3f
	mov $0xb0, %eax
2:	mov %edx, %ecx
	shl $16, %eax
	or $DOORBELL_APIC_WRITE, %eax
	RING_APIC
3:	ret

# A bit for each register that is mirrored, by its offset divided by 16.
	.balign 4
	.global apic_mirrored
apic_mirrored:
	.long APIC_MIRRORED_LOW
	.long APIC_MIRRORED_HIGH
.endif

# A ROM can also be built for one guest, with APIC_VIRTUAL_BASE set to where that guest has its APIC
# page.  Else, and without such a host, get_reloc answers NONE and the guest's own access, which is
# right and costs the same exit, stays in place.  Values from a page on upward are taken as
# addresses, as the proposal has it.
.ifdef APIC_VIRTUAL_BASE
	.set APIC_SPAN, 0x1000

	.global native_APICWrite
native_APICWrite:			# EAX = offset or address, EDX = value
	cmp $APIC_SPAN, %eax
	jae 1f
	add $APIC_VIRTUAL_BASE, %eax
1:	mov %edx, (%eax)
	ret

	.global native_APICRead
native_APICRead:			# EAX = offset or address -> EAX
	cmp $APIC_SPAN, %eax
	jae 1f
	add $APIC_VIRTUAL_BASE, %eax
1:	mov (%eax), %eax
	ret
.endif

# Port 0x80 shows POST codes; writing to it takes about a microsecond on an ISA bus, and what AL
# holds does not matter.
.if CALLS_ALL | FLAVOUR_BATCHING		# which answers NOP, but with an address
	.global native_IODelay
native_IODelay:
	outb %al, $0x80
	ret
.endif
