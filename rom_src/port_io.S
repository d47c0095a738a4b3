# SPDX-License-Identifier: GPL-2.0-or-later
#
# Port I/O, this toolkit's extension: the twelve calls of the 2006 interface, in the gap that API 3.0
# left where they had been.
#
#	EDX = port, EAX = value		IN, INB, INW -> EAX; OUT, OUTB, OUTW
#	EDX = port, ECX = count		INS, INSB, INSW to ES:EDI; OUTS, OUTSB, OUTSW from ESI
#
# As the native instructions: a narrow read leaves the rest of EAX, string calls leave ECX 0 and the
# pointer behind the last element, in the direction that DF says.
#
# Every port call is made by this macro, so what some ports are to do instead is decided in one place.

.if CALLS_ALL
	.macro PORT_CALL name, instruction:vararg
	.global native_\name
native_\name:
	\instruction
	ret
	.endm

	.text
	PORT_CALL IN, in (%dx), %eax
	PORT_CALL INB, in (%dx), %al
	PORT_CALL INW, in (%dx), %ax
	PORT_CALL INS, rep insl
	PORT_CALL INSB, rep insb
	PORT_CALL INSW, rep insw
	PORT_CALL OUT, out %eax, (%dx)
	PORT_CALL OUTB, out %al, (%dx)
	PORT_CALL OUTW, out %ax, (%dx)
	PORT_CALL OUTS, rep outsl
	PORT_CALL OUTSB, rep outsb
	PORT_CALL OUTSW, rep outsw
.endif
