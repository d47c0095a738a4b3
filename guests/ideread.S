# summary: disk: read 1 MiB from the first IDE disk by PIO, and tell its CRC-32
# disk: 2048
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: sectors=2048 (how many to read), multiple=16 (sectors per block, a power of 2; with 1
# by READ SECTORS, else by READ MULTIPLE), ports=1 (2 and 3 keep native port instructions beside a ROM:
# see lib/vmi.inc).
#
# What a driver does that polls: device interrupts off, status before each block, blocks by REP INSW.
# Every access is a port call, so a ROM that has them gets it.  The CRC-32 is that of zlib, so anyone can
# say whether it is right.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.set PORTS_PARAMETER, 1
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set SECTOR, 512
	.set MOST_SECTORS, 0xfffffff
	.set MOST_MULTIPLE, 16
	.set MOST_A_COMMAND, 256

# ATA/ATAPI-6: the first channel.
	.set ATA_DATA, 0x1f0
	.set ATA_COUNT, 0x1f2
	.set ATA_LOW, 0x1f3
	.set ATA_DEVICE, 0x1f6
	.set ATA_COMMAND, 0x1f7
	.set ATA_CONTROL, 0x3f6
	.set ATA_NO_INTERRUPT, 0x02
	.set ATA_BUSY, 0x80
	.set ATA_DATA_REQUEST, 0x08
	.set ATA_ERROR, 0x01
	.set ATA_LBA, 0xe0
	.set ATA_READ, 0x20
	.set ATA_READ_MULTIPLE, 0xc4
	.set ATA_SET_MULTIPLE, 0xc6
	.set ATA_IDENTIFY, 0xec
	.set IDENTIFY_SECTORS, 2 * 60

	.set CRC_POLYNOMIAL, 0xedb88320

	.text
guest_main:
	PARAMETER sectors, 2048, MOST_SECTORS
	mov %eax, sectors
	PARAMETER multiple, 16, MOST_MULTIPLE
	mov %eax, multiple
	call make_crc_table
	call find_disk
	EXPECT e, 1, "there is no disk; vmirom run ideread --disk FILE gives it one"
	mov $ATA_CONTROL, %edx
	mov $ATA_NO_INTERRUPT, %al
	PORT OUTB

	mov $ATA_IDENTIFY, %al
	call command
	call await_data
	mov $1, %ecx
	call take_sectors
	mov sectors, %eax
	cmp buffer + IDENTIFY_SECTORS, %eax
	EXPECT be, 2, "the disk has fewer sectors than are to be read"

	movl $ATA_READ, read_command
	mov multiple, %al
	cmp $1, %al
	je 1f
	call set_count
	mov $ATA_SET_MULTIPLE, %al
	call command
	call await_ready
	movl $ATA_READ_MULTIPLE, read_command

1:	movl $0xffffffff, crc
	xor %esi, %esi				# the next sector
2:	mov sectors, %ebx			# of this command
	sub %esi, %ebx
	jz 5f
	cmp $MOST_A_COMMAND, %ebx
	jbe 3f
	mov $MOST_A_COMMAND, %ebx
3:	mov %bl, %al				# 256 is told as 0
	call set_count
	mov %esi, %eax
	call set_sector
	mov read_command, %al
	call command
	add %ebx, %esi
4:	call await_data
	mov multiple, %ecx
	cmp %ebx, %ecx
	jbe 6f
	mov %ebx, %ecx
6:	sub %ecx, %ebx
	call take_sectors
	call add_to_crc
	test %ebx, %ebx
	jnz 4b
	call await_ready
	test $ATA_DATA_REQUEST, %al
	EXPECT z, 5, "the disk has more data than was asked for"
	jmp 2b

5:	notl crc
	SAY "ideread: "
	SAY_NUMBER sectors
	SAY " sectors, CRC-32 "
	mov crc, %eax
	call print_hex
	SAY ", ok\n"
	xor %eax, %eax
	ret

# A drive keeps what its registers are told; a bus without one does not.  Firmware may have left the
# other device selected.
find_disk:				# -> ZF if there is one
	mov $ATA_DEVICE, %edx
	mov $ATA_LBA, %al
	PORT OUTB
	mov $ATA_LOW, %edx
	mov $0x5a, %al
	PORT OUTB
	mov $ATA_LOW, %edx
	PORT INB
	cmp $0x5a, %al
	ret

set_count:				# AL = sectors
	mov $ATA_COUNT, %edx
	PORT OUTB
	ret

set_sector:				# EAX = sector, 28 bits
	mov %eax, %edi
	mov $ATA_LOW, %edx
	PORT OUTB
	shr $8, %edi
	mov %edi, %eax
	mov $ATA_LOW + 1, %edx
	PORT OUTB
	shr $8, %edi
	mov %edi, %eax
	mov $ATA_LOW + 2, %edx
	PORT OUTB
	shr $8, %edi
	mov %edi, %eax
	or $ATA_LBA, %al
	mov $ATA_DEVICE, %edx
	PORT OUTB
	ret

command:				# AL
	mov $ATA_COMMAND, %edx
	PORT OUTB
	ret

await_ready:				# -> AL = status
	mov $ATA_COMMAND, %edx
	PORT INB
	test $ATA_BUSY, %al
	jnz await_ready
	test $ATA_ERROR, %al
	EXPECT z, 3, "the disk refuses"
	ret

await_data:
	call await_ready
	test $ATA_DATA_REQUEST, %al
	EXPECT nz, 4, "the disk has no data"
	ret

take_sectors:				# ECX = how many -> ECX = bytes, in the buffer
	shl $9, %ecx
	push %ecx
	shr $1, %ecx
	mov $buffer, %edi
	mov $ATA_DATA, %edx
	cld
	PORT INSW
	pop %ecx
	ret

make_crc_table:
	xor %ecx, %ecx
1:	mov %ecx, %eax
	mov $8, %edx
2:	shr $1, %eax
	jnc 3f
	xor $CRC_POLYNOMIAL, %eax
3:	dec %edx
	jnz 2b
	mov %eax, crc_table(,%ecx,4)
	inc %ecx
	cmp $256, %ecx
	jb 1b
	ret

add_to_crc:				# ECX = bytes in the buffer
	push %esi
	mov $buffer, %esi
	mov crc, %eax
1:	movzbl (%esi), %edx
	xor %al, %dl
	shr $8, %eax
	xor crc_table(,%edx,4), %eax
	inc %esi
	dec %ecx
	jnz 1b
	mov %eax, crc
	pop %esi
	ret

	.data
	.balign 4
sectors:
	.long 0
multiple:
	.long 0
read_command:
	.long 0
crc:	.long 0
	.bss
	.balign 4
crc_table:
	.skip 256 * 4
buffer:
	.skip MOST_MULTIPLE * SECTOR
	.text

	.include "lib/end.inc"
