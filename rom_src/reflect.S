# SPDX-License-Identifier: GPL-2.0-or-later
#
# Where the host sends accesses to the IDE channels' ports that the guest makes natively
# (vmi/reflection.py).  What a port call would do is done here, on the frame of the access: where
# the port calls have the caller's flags it has the access, with the direction flag in its place.

	.include "ide.inc"

.if FLAVOUR_BATCHING
	.set FRAME_ACCESS, FRAME_FLAGS
	.set FRAME_EIP, FRAME_ACCESS + 4

	.section .rodata
	.balign 2
	.global reflection
reflection:
	.word reflect_port
	.word port_IN, port_INB, port_INW, port_INS, port_INSB, port_INSW
	.word port_OUT, port_OUTB, port_OUTW, port_OUTS, port_OUTSB, port_OUTSW

	.text

# Interrupts are off, until IRET.
	.global reflect_port
reflect_port:				# stack: access, EIP, CS, EFLAGS
	cld
	pushal
	mov %esp, %ebp
	mov FRAME_ACCESS(%ebp), %eax
	mov %eax, %edx
	shr $ACCESS_PORT_SHIFT, %edx
	mov %eax, %ecx
	and $ACCESS_SIZE, %ecx
	mov %ecx, FRAME_WIDTH(%ebp)
	test $ACCESS_STRING, %al
	jnz 3f
	test $ACCESS_OUT, %al
	jnz 1f
	call ide_in
	jmp 2f
1:	call ide_out
2:	jc 6f
	popal
	add $4, %esp
	iret

3:	test $ACCESS_REPEATED, %al
	jnz 4f
	pushl FRAME_ECX(%ebp)			# which a single one does not count
	movl $1, FRAME_ECX(%ebp)
	call 5f
	popl FRAME_ECX(%ebp)
	jmp 2b
4:	call 5f
	jmp 2b
5:	test $ACCESS_OUT, %al
	jz ide_ins
	jmp ide_outs

# The host keeps the channel: back to the instruction.
6:	mov FRAME_ACCESS(%ebp), %eax
	shr $ACCESS_LENGTH_SHIFT, %eax
	and $0xf, %eax
	sub %eax, FRAME_EIP(%ebp)
	popal
	add $4, %esp
	iret
.endif
