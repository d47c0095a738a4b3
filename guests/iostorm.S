# summary: devices: sectors from a disk, bytes to the serial port, times from the PIT
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: reads=1 and blocks=1 (4 KiB from the disk, a command a sector or one for all), bytes=1 (to
# the serial port), times=1 (the time read: a counter of the PIT, latched, or a ROM's cycle counter),
# polls=1 (the counter read as it runs), ports=1 (2 and 3 keep native port instructions beside a
# ROM: see lib/vmi.inc).
#
# Ports are accessed by the port calls where a ROM offers them, else by the native instructions.  Each operation is what a driver does for it without interrupts: status is polled, and a device that
# is ready at once is asked once.  Checked are the disk's contents, which are byte n of sector s =
# 7 * (512 * s + n) + s, and that the time goes on.  Without a disk the reads are left out.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.set PORTS_PARAMETER, 1
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set MOST, 1000000
	.set SECTOR, 512
	.set BLOCK_SECTORS, 8

	# ATA/ATAPI-6: the command block of the first channel.
	.set ATA_DATA, 0x1f0
	.set ATA_COUNT, 0x1f2
	.set ATA_LOW, 0x1f3
	.set ATA_MID, 0x1f4
	.set ATA_HIGH, 0x1f5
	.set ATA_DEVICE, 0x1f6
	.set ATA_COMMAND, 0x1f7
	.set ATA_BUSY, 0x80
	.set ATA_DATA_REQUEST, 0x08
	.set ATA_ERROR, 0x01
	.set ATA_LBA, 0xe0
	.set ATA_READ, 0x20
	.set ATA_READ_MULTIPLE, 0xc4
	.set ATA_SET_MULTIPLE, 0xc6

	.set SERIAL, 0x3f8
	.set SERIAL_STATUS, SERIAL + 5
	.set SERIAL_EMPTY, 0x20

	.set PIT_COUNTER, 0x40
	.set PIT_COMMAND, 0x43
	.set PIT_RATE, 0x34			# counter 0, both bytes, rate generator
	.set PIT_LATCH, 0x00
	.set DELAY, 10000

	.text
guest_main:
	PARAMETER reads, 1, MOST
	mov %eax, reads
	PARAMETER blocks, 1, MOST
	mov %eax, blocks
	PARAMETER bytes, 1, MOST
	mov %eax, bytes
	PARAMETER times, 1, MOST
	mov %eax, times
	PARAMETER polls, 1, MOST
	mov %eax, polls

	call find_disk
	jz 1f
	SAY "no disk, "
	jmp 3f
1:	xor %ebx, %ebx
2:	call read_singly
	inc %ebx
	cmp reads, %ebx
	jb 2b

	mov $BLOCK_SECTORS, %al
	call set_count
	mov $ATA_SET_MULTIPLE, %al
	call command
	call await_ready
	xor %ebx, %ebx
1:	call read_at_once
	inc %ebx
	cmp blocks, %ebx
	jb 1b

3:	xor %ebx, %ebx
1:	call send_byte
	inc %ebx
	cmp bytes, %ebx
	jb 1b

	mov $PIT_RATE, %al
	out %al, $PIT_COMMAND
	xor %al, %al				# from 65536 down
	out %al, $PIT_COUNTER
	out %al, $PIT_COUNTER
	call read_time
	mov %eax, first_time
	mov $DELAY, %ecx			# longer than a tick
1:	loop 1b
	xor %ebx, %ebx
1:	call read_time
	cmp first_time, %eax
	je 2f
	incl changes
2:	inc %ebx
	cmp times, %ebx
	jb 1b
	cmpl $0, changes
	EXPECT ne, 3, "time stands still"

	xor %ebx, %ebx
1:	call poll_counter
	inc %ebx
	cmp polls, %ebx
	jb 1b
	SAY "iostorm: devices, ok\n"
	xor %eax, %eax
	ret

# A drive keeps what its registers are told; a bus without one does not.
find_disk:				# -> ZF if there is one
	mov $ATA_LOW, %edx
	mov $0x5a, %al
	PORT OUTB
	mov $ATA_LOW, %edx
	PORT INB
	cmp $0x5a, %al
	ret

# One sector a command, eight of them.
read_singly:
	xor %esi, %esi
1:	mov $1, %al
	call set_count
	mov %esi, %eax
	call set_sector
	mov $ATA_READ, %al
	call command
	call await_data
	mov $1, %ecx
	call take_sectors
	mov %esi, %eax
	mov $buffer, %edi
	call check_sector
	inc %esi
	cmp $BLOCK_SECTORS, %esi
	jb 1b
	ret

# Eight sectors, with one command and in one block.
read_at_once:
	mov $BLOCK_SECTORS, %al
	call set_count
	xor %eax, %eax
	call set_sector
	mov $ATA_READ_MULTIPLE, %al
	call command
	call await_data
	mov $BLOCK_SECTORS, %ecx
	call take_sectors
	xor %esi, %esi
1:	mov %esi, %eax
	mov %esi, %edi
	imul $SECTOR, %edi
	add $buffer, %edi
	call check_sector
	inc %esi
	cmp $BLOCK_SECTORS, %esi
	jb 1b
	ret

set_count:				# AL = sectors
	mov $ATA_COUNT, %edx
	PORT OUTB
	ret

set_sector:				# EAX = sector, below 256
	mov $ATA_LOW, %edx
	PORT OUTB
	xor %al, %al
	mov $ATA_MID, %edx
	PORT OUTB
	xor %al, %al
	mov $ATA_HIGH, %edx
	PORT OUTB
	mov $ATA_DEVICE, %edx
	mov $ATA_LBA, %al
	PORT OUTB
	ret

command:				# AL
	mov $ATA_COMMAND, %edx
	PORT OUTB
	ret

await_ready:
1:	mov $ATA_COMMAND, %edx
	PORT INB
	test $ATA_BUSY, %al
	jnz 1b
	test $ATA_ERROR, %al
	EXPECT z, 1, "the disk refuses"
	ret

await_data:
	call await_ready
	test $ATA_DATA_REQUEST, %al
	EXPECT nz, 2, "the disk has no data"
	ret

take_sectors:				# ECX = how many
	imul $SECTOR / 2, %ecx
	mov $buffer, %edi
	mov $ATA_DATA, %edx
	cld
	PORT INSW
	ret

check_sector:				# EAX = sector, EDI = where; keeps ESI
	xor %ecx, %ecx
	mov %eax, %edx
	imul $SECTOR * 7 + 1, %edx
1:	cmp %dl, (%edi,%ecx)
	EXPECT e, 4, "the disk holds something else"
	add $7, %edx
	inc %ecx
	cmp $SECTOR, %ecx
	jb 1b
	ret

send_byte:				# EBX = how manieth
1:	mov $SERIAL_STATUS, %edx
	PORT INB
	test $SERIAL_EMPTY, %al
	jz 1b
	mov $0x0a, %al
	mov %ebx, %ecx
	and $63, %ecx
	cmp $63, %ecx
	je 2f
	mov $0x2e, %al
2:	mov $SERIAL, %edx
	PORT OUTB
	ret

read_time:				# -> EAX
	mov $CYCLES_REAL, %eax
	VMI_SITE
	mov $PIT_LATCH, %al
	out %al, $PIT_COMMAND
	in $PIT_COUNTER, %al
	mov %al, %ah
	in $PIT_COUNTER, %al
	xchg %al, %ah
	movzwl %ax, %eax
	VMI_SITE_END CALL_GetCycleCounter
	ret

poll_counter:
	mov $PIT_COUNTER, %edx
	PORT INB				# low byte, high byte
	mov $PIT_COUNTER, %edx
	PORT INB
	ret

	.data
	.balign 4
reads:	.long 0
blocks:	.long 0
bytes:	.long 0
times:	.long 0
polls:	.long 0
changes:
	.long 0
first_time:
	.long 0
buffer:
	.skip BLOCK_SECTORS * SECTOR

	.include "lib/end.inc"
