# SPDX-License-Identifier: GPL-2.0-or-later
#
# Port I/O, this toolkit's extension: the twelve calls of the 2006 interface, in the gap that API 3.0
# left where they had been.
#
#	EDX = port, EAX = value		IN, INB, INW -> EAX; OUT, OUTB, OUTW
#	EDX = port, ECX = count		INS, INSB, INSW to ES:EDI; OUTS, OUTSB, OUTSW from ESI
#
# As the native instructions: a narrow read leaves the rest of EAX, string calls leave ECX 0 and the
# pointer behind the last element, in the direction that DF says.  Flags are kept.
#
# Every port call is made by PORT_CALL: natively, and where the host hands the IDE channels over, by
# ide.S if the port is one of theirs.

	.include "ide.inc"

	.macro PORT_CALL name, width, routine, instruction:vararg
.if CALLS_ALL
	.global native_\name
native_\name:
	\instruction
	ret
.endif
.if FLAVOUR_BATCHING
	.global port_\name
port_\name:
	pushfl
	cli
	cld
	pushal
	mov %esp, %ebp
	movl $\width, FRAME_WIDTH(%ebp)
	call \routine
	popal					# which leaves carry
	jc 1f
	popfl
	ret
1:	popfl
	\instruction
	ret
.endif
	.endm

	.text
	PORT_CALL IN, 4, ide_in, in (%dx), %eax
	PORT_CALL INB, 1, ide_in, in (%dx), %al
	PORT_CALL INW, 2, ide_in, in (%dx), %ax
	PORT_CALL INS, 4, ide_ins, rep insl
	PORT_CALL INSB, 1, ide_ins, rep insb
	PORT_CALL INSW, 2, ide_ins, rep insw
	PORT_CALL OUT, 4, ide_out, out %eax, (%dx)
	PORT_CALL OUTB, 1, ide_out, out %al, (%dx)
	PORT_CALL OUTW, 2, ide_out, out %ax, (%dx)
	PORT_CALL OUTS, 4, ide_outs, rep outsl
	PORT_CALL OUTSB, 1, ide_outs, rep outsb
	PORT_CALL OUTSW, 2, ide_outs, rep outsw
