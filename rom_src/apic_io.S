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
# So these two are offered only in a ROM that was built for one guest, with APIC_VIRTUAL_BASE
# set to where that guest has its APIC page; otherwise get_reloc answers NONE and the guest's own
# access, which is right and costs the same exit, stays in place.  Values from a page on upward are
# taken as addresses, as the proposal has it.
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
