# SPDX-License-Identifier: GPL-2.0-or-later
#
# The IDE channels at their legacy ports, inside the ROM: a port call to one of them costs no exit.
# ATA/ATAPI-6, PIO only; what the userspace device does, this does, register by register.
#
# The host hands a channel over at the first call (and takes it back when the guest uses a native
# instruction there, which is why each call looks whether it is still ours).  It then has to be
# asked for sectors, a buffer at a time, and told of the interrupt line.
#
# Interrupts are off during a call, so each is one access to whoever shares the channel with a
# handler, as on a bus.  That says nothing to other processors, and a lock in place of it would be
# held when a string call faults, whose handler may want the channel: so the host hands channels to a
# machine with one processor alone.  What is weak: a string call keeps interrupts off for as long as
# it takes; one that faults in the middle and is never resumed has copied without counting.

	.include "ide.inc"

.if FLAVOUR_BATCHING
	.set PRIMARY, 0x1f0
	.set PRIMARY_CONTROL, 0x3f6
	.set SECONDARY, 0x170
	.set SECONDARY_CONTROL, 0x376

	.set FLOATING_STATUS, 0x7f		# nobody drives the bus; bit 7 is pulled down
	.set STATUS_BUSY, 0x80
	.set DEVICE_ONES, 0xa0

	.text

# Whose port is it?  EDX = port -> EBX = block, ECX = register; carry if it is no IDE port, or the
# host keeps the channel.
ide_claim:
	movzwl %dx, %edx
	mov %edx, %eax
	mov %edx, %ecx
	and $0xfff8, %eax
	and $7, %ecx
	xor %esi, %esi
	cmp $PRIMARY, %eax
	je 2f
	cmp $PRIMARY_CONTROL, %edx
	je 1f
	inc %esi
	cmp $SECONDARY, %eax
	je 2f
	cmp $SECONDARY_CONTROL, %edx
	je 1f
	stc
	ret
1:	mov $REGISTER_CONTROL, %ecx
2:	call 3f
3:	pop %ebx
	imul $CHANNEL_BLOCK_SIZE, %esi, %eax
	lea ide_channels - 3b(%ebx,%eax), %ebx
	cmpl $0, CHANNEL_OWNED(%ebx)
	jne 4f
	mov %esi, CHANNEL_NUMBER(%ebx)
	push %ecx
	mov %ebx, %ecx
	mov $DOORBELL_IDE_TAKE, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	pop %ecx
	cmpl $0, CHANNEL_OWNED(%ebx)
	jne 4f
	stc
	ret
4:	clc
	ret

# ---- the calls: carry if the native instruction is due

	.global ide_in
ide_in:					# EDX = port
	call ide_claim
	jc 4f
	call ide_read
	cmpl $2, FRAME_WIDTH(%ebp)
	ja 2f
	je 1f
	mov %al, FRAME_EAX(%ebp)
	jmp 3f
1:	mov %ax, FRAME_EAX(%ebp)
	jmp 3f
2:	mov %eax, FRAME_EAX(%ebp)
3:	clc
4:	ret

	.global ide_out
ide_out:				# EDX = port
	call ide_claim
	jc 1f
	mov FRAME_EAX(%ebp), %eax
	call ide_write
	clc
1:	ret

# What is in the buffer goes over in one piece; registers, and what crosses the end of a block, one
# element at a time.
	.global ide_ins
ide_ins:				# EDX = port
	call ide_claim
	jc 9f
	push %ecx
1:	cmpl $0, FRAME_ECX(%ebp)
	je 8f
	mov (%esp), %ecx
	test %ecx, %ecx
	jnz 3f
	call ide_can_read
	jc 3f
	call ide_run
	jz 3f
	mov CHANNEL_POSITION(%ebx), %esi
	lea CHANNEL_BUFFER(%ebx,%esi), %esi
	mov FRAME_EDI(%ebp), %edi
	call ide_copy
	mov %edi, FRAME_EDI(%ebp)
	sub %edx, FRAME_ECX(%ebp)
	add CHANNEL_POSITION(%ebx), %eax
	mov %eax, CHANNEL_POSITION(%ebx)
	cmp CHANNEL_BLOCK_END(%ebx), %eax
	jb 1b
	call ide_block_read
	call ide_settle
	jmp 1b
3:	mov (%esp), %ecx
	call ide_read
	mov FRAME_EDI(%ebp), %edi
	mov FRAME_WIDTH(%ebp), %ecx
	cmp $2, %ecx
	ja 5f
	je 4f
	mov %al, (%edi)
	jmp 6f
4:	mov %ax, (%edi)
	jmp 6f
5:	mov %eax, (%edi)
6:	call ide_step
	add %ecx, FRAME_EDI(%ebp)
	jmp 1b
8:	pop %ecx
	clc
9:	ret

	.global ide_outs
ide_outs:				# EDX = port
	call ide_claim
	jc 9f
	push %ecx
1:	cmpl $0, FRAME_ECX(%ebp)
	je 8f
	mov (%esp), %ecx
	test %ecx, %ecx
	jnz 3f
	call ide_can_write
	jc 3f
	call ide_run
	jz 3f
	mov FRAME_ESI(%ebp), %esi
	mov CHANNEL_POSITION(%ebx), %edi
	lea CHANNEL_BUFFER(%ebx,%edi), %edi
	call ide_copy
	mov %esi, FRAME_ESI(%ebp)
	sub %edx, FRAME_ECX(%ebp)
	add CHANNEL_POSITION(%ebx), %eax
	mov %eax, CHANNEL_POSITION(%ebx)
	cmp CHANNEL_BLOCK_END(%ebx), %eax
	jb 1b
	call ide_block_written
	call ide_settle
	jmp 1b
3:	mov FRAME_ESI(%ebp), %esi
	mov FRAME_WIDTH(%ebp), %ecx
	cmp $2, %ecx
	ja 5f
	je 4f
	movzbl (%esi), %eax
	jmp 6f
4:	movzwl (%esi), %eax
	jmp 6f
5:	mov (%esi), %eax
6:	mov (%esp), %ecx
	call ide_write
	mov FRAME_WIDTH(%ebp), %ecx
	call ide_step
	add %ecx, FRAME_ESI(%ebp)
	jmp 1b
8:	pop %ecx
	clc
9:	ret

# How much of a string call the current block has or takes -> EDX = elements, ECX = bytes; ZF if
# none, or if the string goes down.
ide_run:
	testl $FLAG_DIRECTION, FRAME_FLAGS(%ebp)
	jnz 2f
	mov CHANNEL_BLOCK_END(%ebx), %edx
	sub CHANNEL_POSITION(%ebx), %edx
	mov FRAME_WIDTH(%ebp), %ecx
	shr $1, %ecx				# 1, 2, 4: shifted by 0, 1, 2
	shr %cl, %edx
	cmp FRAME_ECX(%ebp), %edx
	jbe 1f
	mov FRAME_ECX(%ebp), %edx
1:	mov %edx, %eax
	shl %cl, %eax
	mov %eax, %ecx
	test %edx, %edx
	ret
2:	xor %edx, %edx
	ret

ide_copy:				# ESI, EDI, ECX = bytes -> EAX = bytes; keeps EDX
	mov %ecx, %eax
	shr $2, %ecx
	rep movsl
	mov %eax, %ecx
	and $3, %ecx
	rep movsb
	ret

ide_step:				# ECX = width -> ECX = what the pointer moves by
	decl FRAME_ECX(%ebp)
	testl $FLAG_DIRECTION, FRAME_FLAGS(%ebp)
	jz 1f
	neg %ecx
1:	ret

# ---- one access: ECX = register, of as many bytes as the frame says

ide_read:				# -> EAX
	test %ecx, %ecx
	jz ide_read_data
	push $0
	xor %edi, %edi
1:	call ide_read_register
	mov %al, (%esp,%edi)
	inc %ecx
	inc %edi
	cmp FRAME_WIDTH(%ebp), %edi
	jb 1b
	pop %eax
	ret

ide_write:				# EAX = value
	test %ecx, %ecx
	jz 2f
	push %eax
	xor %edi, %edi
1:	mov (%esp,%edi), %al
	push %ecx
	push %edi
	call ide_write_register
	pop %edi
	pop %ecx
	inc %ecx
	inc %edi
	cmp FRAME_WIDTH(%ebp), %edi
	jb 1b
	pop %eax
	jmp ide_settle
2:	call ide_write_data
	jmp ide_settle

ide_read_register:			# ECX -> AL; keeps ECX, EDI
	cmp $REGISTER_STATUS, %ecx
	je ide_read_status
	cmp $REGISTER_CONTROL, %ecx
	je ide_read_status
	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 4f
	cmp $REGISTER_STATUS, %ecx
	ja 4f
	cmp $REGISTER_ERROR, %ecx
	je 3f
	cmp $REGISTER_DEVICE, %ecx
	je 2f
	testb $CONTROL_PREVIOUS, CHANNEL_CONTROL(%ebx)
	jnz 1f
	mov CHANNEL_REGISTERS(%ebx,%ecx), %al
	ret
1:	mov CHANNEL_PREVIOUS(%ebx,%ecx), %al
	ret
2:	mov CHANNEL_SELECTED(%ebx), %eax
	shl $4, %eax
	mov CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx), %dl
	and $0xef, %dl				# which device, as selected
	or %dl, %al
	or $DEVICE_ONES, %al
	ret
3:	mov CHANNEL_ERROR(%ebx), %al
	ret
4:	mov $0xff, %al
	ret

# Status takes the interrupt back; read through device control it does not.
ide_read_status:			# ECX -> AL; keeps ECX, EDI
	mov $FLOATING_STATUS, %al
	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 2f
	mov $STATUS_BUSY, %al
	testb $CONTROL_RESET, CHANNEL_CONTROL(%ebx)
	jnz 2f
	xor %eax, %eax
	cmpl $0, CHANNEL_SELECTED(%ebx)
	jne 2f
	cmp $REGISTER_CONTROL, %ecx
	je 1f
	movl $0, CHANNEL_INTERRUPT(%ebx)
	push %ecx
	call ide_settle
	pop %ecx
1:	mov CHANNEL_STATUS(%ebx), %al
2:	ret

ide_write_register:			# ECX, AL = value
	cmp $REGISTER_CONTROL, %ecx
	je ide_write_control
	andb $0xff - CONTROL_PREVIOUS, CHANNEL_CONTROL(%ebx)
	cmp $REGISTER_STATUS, %ecx
	je ide_execute
	ja 2f
	cmp $REGISTER_DEVICE, %ecx
	jne 1f
	movzbl %al, %edx
	shr $4, %edx
	and $1, %edx
	mov %edx, CHANNEL_SELECTED(%ebx)
1:	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 2f
	mov CHANNEL_REGISTERS(%ebx,%ecx), %dl
	mov %dl, CHANNEL_PREVIOUS(%ebx,%ecx)
	mov %al, CHANNEL_REGISTERS(%ebx,%ecx)
2:	ret

# The reset begins when its bit is set, and is over at once.
ide_write_control:			# AL = value
	movzbl %al, %eax
	test $CONTROL_RESET, %al
	jz 1f
	testb $CONTROL_RESET, CHANNEL_CONTROL(%ebx)
	jnz 1f
	movl $0, CHANNEL_SELECTED(%ebx)
	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 1f
	push %eax
	call ide_spill
	call ide_reset
	pop %eax
1:	mov %eax, CHANNEL_CONTROL(%ebx)
	ret

# ---- the host

# Is the line to be up?  -> EAX.
ide_line:
	xor %eax, %eax
	testb $CONTROL_NO_INTERRUPT, CHANNEL_CONTROL(%ebx)
	jnz 1f
	cmpl $0, CHANNEL_SELECTED(%ebx)
	jne 1f
	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 1f
	mov CHANNEL_INTERRUPT(%ebx), %eax
1:	ret

# Tell the host when the line changes, and only then: with interrupts disabled at the device it
# never does.
	.global ide_settle
ide_settle:
	call ide_line
	cmp CHANNEL_LEVEL(%ebx), %eax
	jne 1f
	ret
1:	mov %eax, CHANNEL_LEVEL(%ebx)
	mov $CHANNEL_REQUEST_LINE, %eax
	jmp ide_request

# A request at whose end the drive asks for service: the line goes up with it.
	.global ide_request_service
ide_request_service:			# EAX = what
	push %eax
	movl $1, CHANNEL_INTERRUPT(%ebx)
	call ide_line
	mov %eax, CHANNEL_LEVEL(%ebx)
	pop %eax

	.global ide_request
ide_request:				# EAX = what; spends EAX, ECX, EDX
	mov %eax, CHANNEL_REQUEST(%ebx)
	movl $0, CHANNEL_DONE(%ebx)
	mov CHANNEL_NUMBER(%ebx), %ecx
	mov $DOORBELL_IDE_REQUEST, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	ret
.endif
