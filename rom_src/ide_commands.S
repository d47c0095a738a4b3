# SPDX-License-Identifier: GPL-2.0-or-later
#
# IDE: commands, and where on the disk they go (ATA/ATAPI-6, chapter 8).  Commands take no time: the
# drive is never seen busy.

	.include "ide.inc"

.if FLAVOUR_BATCHING
	.set DIAGNOSTIC, 0x90
	.set RECALIBRATE, 0x10			# to 0x1f
	.set DIAGNOSTICS_PASSED, 0x01
	.set SIGNATURE, 0x00000101		# count, low, mid and high of an ATA device
	.set MOST_CYLINDERS, 0xffff
	.set IDLE_OR_ACTIVE, 0xff
	.set FEATURE_TRANSFER_MODE, 0x03
	.set MODE_FIRST, 0x08			# PIO modes 0 to 4 with flow control
	.set MODE_LAST, 0x0c
	.set MODE_NO_FLOW_CONTROL, 0x01		# and 0, the default

# Words of the identification that change.
	.set IDENTIFY_CYLINDERS, CHANNEL_IDENTIFY + 2 * 54
	.set IDENTIFY_HEADS, CHANNEL_IDENTIFY + 2 * 55
	.set IDENTIFY_TRACK, CHANNEL_IDENTIFY + 2 * 56
	.set IDENTIFY_REACHED, CHANNEL_IDENTIFY + 2 * 57
	.set IDENTIFY_MULTIPLE, CHANNEL_IDENTIFY + 2 * 59
	.set IDENTIFY_MULTIPLE_VALID, 0x100

	.set WIDE, 1				# addresses of 48 bits
	.set IN_BLOCKS, 2			# as SET MULTIPLE MODE has it

	.macro COMMAND code, function, kind=0
	.byte \code, \kind
	.word \function
	.endm

	.section .rodata
ide_commands:
	COMMAND 0x10, ide_succeed		# RECALIBRATE
	COMMAND 0x20, ide_read_sectors
	COMMAND 0x21, ide_read_sectors
	COMMAND 0x24, ide_read_sectors, WIDE
	COMMAND 0x29, ide_read_sectors, WIDE | IN_BLOCKS
	COMMAND 0x30, ide_write_sectors
	COMMAND 0x31, ide_write_sectors
	COMMAND 0x34, ide_write_sectors, WIDE
	COMMAND 0x39, ide_write_sectors, WIDE | IN_BLOCKS
	COMMAND 0x40, ide_verify
	COMMAND 0x41, ide_verify
	COMMAND 0x42, ide_verify, WIDE
	COMMAND 0x70, ide_seek
	COMMAND 0x90, ide_diagnose
	COMMAND 0x91, ide_set_geometry
	COMMAND 0xc4, ide_read_sectors, IN_BLOCKS
	COMMAND 0xc5, ide_write_sectors, IN_BLOCKS
	COMMAND 0xc6, ide_set_multiple
	COMMAND 0xe0, ide_succeed		# STANDBY IMMEDIATE
	COMMAND 0xe1, ide_succeed		# IDLE IMMEDIATE
	COMMAND 0xe2, ide_succeed		# STANDBY
	COMMAND 0xe3, ide_succeed		# IDLE
	COMMAND 0xe5, ide_check_power
	COMMAND 0xe7, ide_flush
	COMMAND 0xea, ide_flush
	COMMAND 0xec, ide_identify
	COMMAND 0xef, ide_set_features
	.byte 0

# Features that are known and have no effect: write cache, read look-ahead, settings kept over a reset.
ide_features:
	.byte 0x02, 0x82, 0x55, 0xaa, 0x66, 0xcc, 0

	.text

# A store to the command register.  A command finds ECX = sectors a block.
	.global ide_execute
ide_execute:				# AL = command
	testb $CONTROL_RESET, CHANNEL_CONTROL(%ebx)
	jnz 1f
	cmp $DIAGNOSTIC, %al
	jne 2f
	movl $0, CHANNEL_SELECTED(%ebx)		# all devices do it, the first one reports
2:	cmpl $0, CHANNEL_SELECTED(%ebx)
	jne 1f
	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 1f
	push %eax
	call ide_spill
	pop %eax
	movl $0, CHANNEL_INTERRUPT(%ebx)
	movl $0, CHANNEL_ERROR(%ebx)
	movl $STATUS_READY, CHANNEL_STATUS(%ebx)
	mov %al, %ah
	and $0xf0, %ah
	cmp $RECALIBRATE, %ah
	jne 3f
	mov $RECALIBRATE, %al
3:	call 4f
4:	pop %edx
	lea ide_commands - 4b(%edx), %esi
5:	mov (%esi), %ah
	test %ah, %ah
	jz ide_abort
	cmp %al, %ah
	je 6f
	add $4, %esi
	jmp 5b
6:	movzbl 1(%esi), %eax
	mov %eax, %ecx
	and $WIDE, %ecx
	mov %ecx, CHANNEL_WIDE(%ebx)
	mov $1, %ecx
	test $IN_BLOCKS, %al
	jz 7f
	mov CHANNEL_MULTIPLE(%ebx), %ecx
7:	movzwl 2(%esi), %eax
	lea rom_start - 4b(%edx,%eax), %eax
	jmp *%eax
1:	ret

ide_abort:
	mov $ERROR_ABORTED, %al

	.global ide_fail
ide_fail:				# AL = error
	movzbl %al, %eax
	mov %eax, CHANNEL_ERROR(%ebx)
	movl $STATUS_READY | STATUS_ERROR, CHANNEL_STATUS(%ebx)
	movl $0, CHANNEL_LEFT(%ebx)

	.global ide_succeed
ide_succeed:
	movl $1, CHANNEL_INTERRUPT(%ebx)
	ret

# Settings survive a reset by software.
	.global ide_reset
ide_reset:
	call ide_sign
	movl $DIAGNOSTICS_PASSED, CHANNEL_ERROR(%ebx)
	movl $STATUS_READY, CHANNEL_STATUS(%ebx)
	movl $0, CHANNEL_INTERRUPT(%ebx)
	ret

ide_sign:
	movl $SIGNATURE, CHANNEL_REGISTERS + REGISTER_COUNT(%ebx)
	movb $0, CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx)
	ret

# ---- where, and how much

# The first sector -> EDX:EAX; carry if cylinder, head and sector name none.
ide_address:
	mov CHANNEL_REGISTERS + REGISTER_LOW(%ebx), %eax
	and $0xffffff, %eax
	cmpl $0, CHANNEL_WIDE(%ebx)
	jne 1f
	movzbl CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx), %ecx
	testb $DEVICE_LBA, %cl
	jz 2f
	and $15, %ecx
	shl $24, %ecx
	or %ecx, %eax
	xor %edx, %edx
	ret
1:	mov CHANNEL_PREVIOUS + REGISTER_LOW(%ebx), %edx
	and $0xffffff, %edx
	mov %edx, %ecx
	shl $24, %ecx
	or %ecx, %eax
	shr $8, %edx				# which leaves carry as bit 7 was:
	clc
	ret
2:	and $15, %ecx
	cmp CHANNEL_HEADS(%ebx), %ecx
	jae 3f
	movzbl %al, %edx
	cmp CHANNEL_TRACK(%ebx), %edx
	ja 3f
	dec %edx				# 0, which names none, becomes as large as can be
	js 3f
	shr $8, %eax
	imul CHANNEL_HEADS(%ebx), %eax
	add %ecx, %eax
	imul CHANNEL_TRACK(%ebx), %eax
	add %edx, %eax
	xor %edx, %edx
	ret
3:	stc
	ret

# Set up a transfer; carry, and the command has failed, if it cannot be.
	.global ide_begin
ide_begin:				# ECX = sectors a block
	mov %ecx, CHANNEL_BLOCK(%ebx)
	movzbl CHANNEL_REGISTERS + REGISTER_COUNT(%ebx), %eax
	mov $0x100, %edx
	cmpl $0, CHANNEL_WIDE(%ebx)
	je 1f
	mov CHANNEL_PREVIOUS + REGISTER_COUNT(%ebx), %ah
	mov $0x10000, %edx
1:	test %eax, %eax
	jnz 2f
	mov %edx, %eax
2:	mov %eax, CHANNEL_LEFT(%ebx)
	mov $ERROR_ABORTED, %al
	cmpl $0, CHANNEL_BLOCK(%ebx)
	je 4f
	call ide_address
	jc 3f
	mov %edx, %ecx
	cmp CHANNEL_CAPACITY(%ebx), %eax
	sbb CHANNEL_CAPACITY + 4(%ebx), %ecx
	jae 3f
	mov %eax, CHANNEL_NEXT(%ebx)
	mov %edx, CHANNEL_NEXT + 4(%ebx)
	clc
	ret
3:	mov $ERROR_NOT_FOUND, %al
4:	call ide_fail
	stc
	ret

# Tell in the registers which sector a transfer has come to: EDX:EAX, in the terms of the command.
	.global ide_show
ide_show:
	cmpl $0, CHANNEL_WIDE(%ebx)
	jne 1f
	testb $DEVICE_LBA, CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx)
	jz 3f
1:	mov %al, CHANNEL_REGISTERS + REGISTER_LOW(%ebx)
	mov %ah, CHANNEL_REGISTERS + REGISTER_MID(%ebx)
	shr $16, %eax
	mov %al, CHANNEL_REGISTERS + REGISTER_HIGH(%ebx)
	cmpl $0, CHANNEL_WIDE(%ebx)
	je 2f
	mov %ah, CHANNEL_PREVIOUS + REGISTER_LOW(%ebx)
	mov %dl, CHANNEL_PREVIOUS + REGISTER_MID(%ebx)
	mov %dh, CHANNEL_PREVIOUS + REGISTER_HIGH(%ebx)
	ret
2:	mov %ah, %dl
	jmp ide_show_head
3:	xor %edx, %edx
	divl CHANNEL_TRACK(%ebx)
	inc %edx
	mov %dl, CHANNEL_REGISTERS + REGISTER_LOW(%ebx)
	xor %edx, %edx
	divl CHANNEL_HEADS(%ebx)
	mov %al, CHANNEL_REGISTERS + REGISTER_MID(%ebx)
	mov %ah, CHANNEL_REGISTERS + REGISTER_HIGH(%ebx)
ide_show_head:				# DL = low half of the device register
	mov CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx), %al
	and $0xf0, %al
	and $15, %dl
	or %dl, %al
	mov %al, CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx)
	ret

# ---- commands without data

ide_verify:
	call ide_begin
	jc 2f
	call ide_reachable_end
	jc ide_out_of_range
	sub $1, %eax
	sbb $0, %edx
	call ide_show
	jmp ide_succeed
2:	ret

# All sectors of the command at once: NEXT -> EDX:EAX = the one behind them; carry if some do not
# exist, and it is the end of the disk.
ide_reachable_end:
	mov CHANNEL_NEXT(%ebx), %eax
	mov CHANNEL_NEXT + 4(%ebx), %edx
	add CHANNEL_LEFT(%ebx), %eax
	adc $0, %edx
	movl $0, CHANNEL_LEFT(%ebx)
	mov CHANNEL_CAPACITY + 4(%ebx), %ecx
	cmp %eax, CHANNEL_CAPACITY(%ebx)
	sbb %edx, %ecx
	jae 1f
	mov CHANNEL_CAPACITY(%ebx), %eax
	mov CHANNEL_CAPACITY + 4(%ebx), %edx
	mov %eax, CHANNEL_NEXT(%ebx)
	mov %edx, CHANNEL_NEXT + 4(%ebx)
	stc
	ret
1:	mov %eax, CHANNEL_NEXT(%ebx)
	mov %edx, CHANNEL_NEXT + 4(%ebx)
	clc
	ret

ide_seek:
	call ide_address
	jc 1f
	mov %edx, %ecx
	cmp CHANNEL_CAPACITY(%ebx), %eax
	sbb CHANNEL_CAPACITY + 4(%ebx), %ecx
	jb ide_succeed
1:	mov $ERROR_NOT_FOUND, %al
	jmp ide_fail

ide_diagnose:
	call ide_sign
	movl $DIAGNOSTICS_PASSED, CHANNEL_ERROR(%ebx)
	jmp ide_succeed

# INITIALIZE DEVICE PARAMETERS: heads less one, and sectors per track.
ide_set_geometry:
	movzbl CHANNEL_REGISTERS + REGISTER_COUNT(%ebx), %edi
	test %edi, %edi
	jz ide_abort
	movzbl CHANNEL_REGISTERS + REGISTER_DEVICE(%ebx), %esi
	and $15, %esi
	inc %esi
	mov %esi, CHANNEL_HEADS(%ebx)
	mov %edi, CHANNEL_TRACK(%ebx)
	mov %esi, %ecx
	imul %edi, %ecx				# sectors per cylinder
	mov CHANNEL_CAPACITY(%ebx), %eax
	mov CHANNEL_CAPACITY + 4(%ebx), %edx
	cmp %ecx, %edx
	jae 1f					# more cylinders than a register holds
	div %ecx
	cmp $MOST_CYLINDERS, %eax
	jbe 2f
1:	mov $MOST_CYLINDERS, %eax
2:	mov %ax, IDENTIFY_CYLINDERS(%ebx)
	mov %si, IDENTIFY_HEADS(%ebx)
	mov %di, IDENTIFY_TRACK(%ebx)
	imul %ecx, %eax
	mov %eax, IDENTIFY_REACHED(%ebx)
	jmp ide_succeed

ide_set_multiple:
	movzbl CHANNEL_REGISTERS + REGISTER_COUNT(%ebx), %eax
	cmp $CHANNEL_BUFFER_SECTORS, %eax
	ja ide_abort
	lea -1(%eax), %ecx
	test %eax, %ecx				# a power of 2, or none
	jnz ide_abort
	mov %eax, CHANNEL_MULTIPLE(%ebx)
	test %eax, %eax
	jz 1f
	or $IDENTIFY_MULTIPLE_VALID, %eax
1:	mov %ax, IDENTIFY_MULTIPLE(%ebx)
	jmp ide_succeed

ide_check_power:
	movb $IDLE_OR_ACTIVE, CHANNEL_REGISTERS + REGISTER_COUNT(%ebx)
	jmp ide_succeed

ide_flush:
	mov $CHANNEL_REQUEST_FLUSH, %eax
	call ide_request_service
	xor %eax, %eax
	xchg %eax, CHANNEL_DEFERRED(%ebx)
	test %eax, %eax
	jnz ide_abort
	cmpl $0, CHANNEL_DONE(%ebx)
	je ide_abort
	jmp ide_succeed

ide_set_features:
	mov CHANNEL_REGISTERS + 1(%ebx), %al
	cmp $FEATURE_TRANSFER_MODE, %al
	je 3f
	call 1f
1:	pop %edx
	lea ide_features - 1b(%edx), %esi
2:	mov (%esi), %ah
	test %ah, %ah
	jz ide_abort
	inc %esi
	cmp %al, %ah
	jne 2b
	jmp ide_succeed
3:	mov CHANNEL_REGISTERS + REGISTER_COUNT(%ebx), %al
	cmp $MODE_NO_FLOW_CONTROL, %al
	jbe ide_succeed
	cmp $MODE_FIRST, %al
	jb ide_abort
	cmp $MODE_LAST, %al
	jbe ide_succeed
	jmp ide_abort
.endif
