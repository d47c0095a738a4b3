# SPDX-License-Identifier: GPL-2.0-or-later
#
# IDE: data through the data port, a block of sectors at a time.
#
# The buffer holds several blocks where they are small: what is read comes from the host as far ahead
# as the command goes, what is written goes there when the buffer is full or the command ends.  So a
# command of n sectors is n / 16 exits, and its end is told to the guest only when all is with the host.

	.include "ide.inc"

.if FLAVOUR_BATCHING
	.text

# May data be read?  Carry if not.
	.global ide_can_read
ide_can_read:
	cmpl $0, CHANNEL_INCOMING(%ebx)
	jne 1f
	jmp ide_has_data
1:	stc
	ret

# May data be written?  Carry if not.
	.global ide_can_write
ide_can_write:
	cmpl $0, CHANNEL_INCOMING(%ebx)
	je 1f
ide_has_data:
	cmpl $0, CHANNEL_PRESENT(%ebx)
	je 1f
	cmpl $0, CHANNEL_SELECTED(%ebx)
	jne 1f
	testb $STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	jz 1f
	clc
	ret
1:	stc
	ret

# How many sectors of the command are there, on the disk?  -> ECX.
ide_reachable:
	mov CHANNEL_CAPACITY(%ebx), %eax
	mov CHANNEL_CAPACITY + 4(%ebx), %edx
	sub CHANNEL_NEXT(%ebx), %eax
	sbb CHANNEL_NEXT + 4(%ebx), %edx
	mov CHANNEL_LEFT(%ebx), %ecx
	test %edx, %edx
	jnz 1f
	cmp %eax, %ecx
	jbe 1f
	mov %eax, %ecx
1:	ret

ide_one_block:				# ECX = sectors -> ECX, at most a block
	cmp CHANNEL_BLOCK(%ebx), %ecx
	jbe 1f
	mov CHANNEL_BLOCK(%ebx), %ecx
1:	ret

# The last sector before the next one -> EDX:EAX.
ide_before_next:
	mov CHANNEL_NEXT(%ebx), %eax
	mov CHANNEL_NEXT + 4(%ebx), %edx
	sub $1, %eax
	sbb $0, %edx
	ret

	.global ide_out_of_range
ide_out_of_range:
	mov CHANNEL_NEXT(%ebx), %eax
	mov CHANNEL_NEXT + 4(%ebx), %edx
	call ide_show
	mov $ERROR_NOT_FOUND, %al
	jmp ide_fail

# ---- from the drive

	.global ide_read_sectors
ide_read_sectors:			# ECX = sectors a block
	movl $0, CHANNEL_INCOMING(%ebx)
	call ide_begin
	jc 1f
	movl $0, CHANNEL_BLOCK_END(%ebx)
	movl $0, CHANNEL_CHUNK_END(%ebx)
	jmp ide_fetch
1:	ret

# The next block, from the buffer if it is there.
ide_fetch:
	call ide_reachable
	test %ecx, %ecx
	jz ide_out_of_range
	mov %ecx, %esi
	call ide_one_block
	mov %ecx, %edi
	shl $SECTOR_SHIFT, %ecx
	add CHANNEL_BLOCK_END(%ebx), %ecx
	cmp CHANNEL_CHUNK_END(%ebx), %ecx
	jbe 2f
	mov CHANNEL_NEXT(%ebx), %eax
	mov %eax, CHANNEL_FIRST(%ebx)
	mov CHANNEL_NEXT + 4(%ebx), %eax
	mov %eax, CHANNEL_FIRST + 4(%ebx)
	cmp $CHANNEL_BUFFER_SECTORS, %esi
	jbe 1f
	mov $CHANNEL_BUFFER_SECTORS, %esi
1:	mov %esi, CHANNEL_SECTORS(%ebx)
	mov $CHANNEL_REQUEST_READ, %eax
	call ide_request_service
	movl $0, CHANNEL_BLOCK_END(%ebx)
	mov CHANNEL_DONE(%ebx), %eax
	cmp %edi, %eax
	jb 3f
	shl $SECTOR_SHIFT, %eax
	mov %eax, CHANNEL_CHUNK_END(%ebx)
	mov %edi, %ecx
	shl $SECTOR_SHIFT, %ecx
2:	mov CHANNEL_BLOCK_END(%ebx), %eax
	mov %eax, CHANNEL_BLOCK_START(%ebx)
	mov %eax, CHANNEL_POSITION(%ebx)
	mov %ecx, CHANNEL_BLOCK_END(%ebx)
	sub %edi, CHANNEL_LEFT(%ebx)
	add %edi, CHANNEL_NEXT(%ebx)
	adcl $0, CHANNEL_NEXT + 4(%ebx)
	call ide_before_next
	call ide_show
	orb $STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	movl $1, CHANNEL_INTERRUPT(%ebx)
	ret
3:	xor %edx, %edx				# the first of the block that could not be read
	add CHANNEL_NEXT(%ebx), %eax
	adc CHANNEL_NEXT + 4(%ebx), %edx
	call ide_show
	mov $ERROR_UNCORRECTABLE, %al
	jmp ide_fail

# What the drive says about itself is a block that no sector follows.
	.global ide_identify
ide_identify:
	xor %eax, %eax
	mov %eax, CHANNEL_INCOMING(%ebx)
	mov %eax, CHANNEL_LEFT(%ebx)
	mov %eax, CHANNEL_BLOCK_START(%ebx)
	mov %eax, CHANNEL_POSITION(%ebx)
	movl $CHANNEL_IDENTIFY_SIZE, CHANNEL_BLOCK_END(%ebx)
	movl $CHANNEL_IDENTIFY_SIZE, CHANNEL_CHUNK_END(%ebx)
	lea CHANNEL_IDENTIFY(%ebx), %esi
	lea CHANNEL_BUFFER(%ebx), %edi
	mov $CHANNEL_IDENTIFY_SIZE / 4, %ecx
	rep movsl
	orb $STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	movl $1, CHANNEL_INTERRUPT(%ebx)
	ret

# All ones where there is nothing; zeros beyond the end of the block.
	.global ide_read_data
ide_read_data:				# -> EAX
	call ide_can_read
	jc 3f
	mov CHANNEL_POSITION(%ebx), %edi
	mov CHANNEL_BUFFER(%ebx,%edi), %eax
	mov CHANNEL_BLOCK_END(%ebx), %ecx
	sub %edi, %ecx
	cmp $4, %ecx
	jae 1f
	shl $3, %ecx
	mov $1, %edx
	shl %cl, %edx
	dec %edx
	and %edx, %eax
1:	add FRAME_WIDTH(%ebp), %edi
	mov %edi, CHANNEL_POSITION(%ebx)
	cmp CHANNEL_BLOCK_END(%ebx), %edi
	jb 2f
	push %eax
	call ide_block_read
	call ide_settle
	pop %eax
2:	ret
3:	mov $0xffffffff, %eax
	ret

	.global ide_block_read
ide_block_read:
	andb $0xff - STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	cmpl $0, CHANNEL_LEFT(%ebx)
	jne ide_fetch
	ret

# ---- to the drive

	.global ide_write_sectors
ide_write_sectors:			# ECX = sectors a block
	mov $ERROR_ABORTED | ERROR_PROTECTED, %al
	cmpl $0, CHANNEL_READ_ONLY(%ebx)
	jne ide_fail
	call ide_begin
	jc 1f
	movl $1, CHANNEL_INCOMING(%ebx)
	movl $0, CHANNEL_BLOCK_END(%ebx)
	call ide_reachable
	call ide_one_block
	jmp ide_accept				# the first block is asked for without an interrupt
1:	ret

ide_accept:				# ECX = sectors
	shl $SECTOR_SHIFT, %ecx
	mov CHANNEL_BLOCK_END(%ebx), %eax
	mov %eax, CHANNEL_BLOCK_START(%ebx)
	mov %eax, CHANNEL_POSITION(%ebx)
	add %ecx, %eax
	mov %eax, CHANNEL_BLOCK_END(%ebx)
	orb $STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	ret

	.global ide_write_data
ide_write_data:				# EAX = value
	call ide_can_write
	jc 3f
	mov CHANNEL_POSITION(%ebx), %edi
	mov CHANNEL_BLOCK_END(%ebx), %ecx
	sub %edi, %ecx
	mov FRAME_WIDTH(%ebp), %edx
	cmp %edx, %ecx
	jbe 1f
	mov %edx, %ecx
1:	add %edi, %edx
	mov %edx, CHANNEL_POSITION(%ebx)
2:	mov %al, CHANNEL_BUFFER(%ebx,%edi)
	shr $8, %eax
	inc %edi
	dec %ecx
	jnz 2b
	cmp CHANNEL_BLOCK_END(%ebx), %edx
	jae ide_block_written
3:	ret

	.global ide_block_written
ide_block_written:
	andb $0xff - STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	mov CHANNEL_BLOCK_END(%ebx), %eax
	mov %eax, %ecx
	sub CHANNEL_BLOCK_START(%ebx), %ecx
	mov %eax, CHANNEL_BLOCK_START(%ebx)
	shr $SECTOR_SHIFT, %ecx
	sub %ecx, CHANNEL_LEFT(%ebx)
	add %ecx, CHANNEL_NEXT(%ebx)
	adcl $0, CHANNEL_NEXT + 4(%ebx)
	call ide_before_next
	call ide_show
	cmpl $0, CHANNEL_LEFT(%ebx)
	je 3f
	call ide_reachable
	test %ecx, %ecx
	jz 4f
	call ide_one_block
	mov %ecx, %eax
	shl $SECTOR_SHIFT, %eax
	add CHANNEL_BLOCK_END(%ebx), %eax
	cmp $CHANNEL_BUFFER_SIZE, %eax
	jbe 1f
	push %ecx
	call ide_store
	pop %ecx
	jc 2f
1:	movl $1, CHANNEL_INTERRUPT(%ebx)
	jmp ide_accept
2:	ret
3:	call ide_store
	jc 2b
	jmp ide_succeed
4:	call ide_store
	jc 2b
	jmp ide_out_of_range

# What waits in the buffer -> the request's sectors; ZF if there is nothing.
ide_pending:
	mov CHANNEL_BLOCK_START(%ebx), %ecx
	shr $SECTOR_SHIFT, %ecx
	mov %ecx, CHANNEL_SECTORS(%ebx)
	mov CHANNEL_NEXT(%ebx), %eax
	mov CHANNEL_NEXT + 4(%ebx), %edx
	sub %ecx, %eax
	sbb $0, %edx
	mov %eax, CHANNEL_FIRST(%ebx)
	mov %edx, CHANNEL_FIRST + 4(%ebx)
	test %ecx, %ecx
	ret

# Hand over what waits; carry, and the command has failed, if the host cannot store it.
ide_store:
	call ide_pending
	jz 1f
	mov $CHANNEL_REQUEST_WRITE, %eax
	call ide_request_service
	mov CHANNEL_DONE(%ebx), %eax
	cmp CHANNEL_SECTORS(%ebx), %eax
	jb 2f
	movl $0, CHANNEL_BLOCK_START(%ebx)
	movl $0, CHANNEL_BLOCK_END(%ebx)
1:	clc
	ret
2:	xor %edx, %edx
	add CHANNEL_FIRST(%ebx), %eax
	adc CHANNEL_FIRST + 4(%ebx), %edx
	call ide_show
	mov $ERROR_ABORTED, %al
	call ide_fail
	stc
	ret

# A command or a reset ends a transfer early: what was written in full has been written.  There is
# no status left to say that it failed; the next FLUSH CACHE does.
	.global ide_spill
ide_spill:
	cmpl $0, CHANNEL_INCOMING(%ebx)
	je 1f
	testb $STATUS_DATA_REQUEST, CHANNEL_STATUS(%ebx)
	jz 1f
	call ide_pending
	jz 1f
	mov $CHANNEL_REQUEST_WRITE, %eax
	call ide_request
	mov CHANNEL_DONE(%ebx), %eax
	cmp CHANNEL_SECTORS(%ebx), %eax
	jae 1f
	movl $1, CHANNEL_DEFERRED(%ebx)
1:	ret
.endif
