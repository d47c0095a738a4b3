# summary: a disk, unpaged: each sector read twice, word by word and by one string instruction
# layout: flat.ld
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: sectors=16.
#
# PIO as a driver of the time does it, status polled.  The two ways to read must give the same words;
# the sum of all of them is printed.  Without a disk that is all there is to say.  No paging and
# nothing that depends on time: the exits are the same on any processor.

	.include "lib/flat.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"

	.set IDE_DATA, 0x1f0
	.set IDE_COUNT, 0x1f2
	.set IDE_LOW, 0x1f3
	.set IDE_MIDDLE, 0x1f4
	.set IDE_HIGH, 0x1f5
	.set IDE_DEVICE, 0x1f6
	.set IDE_STATUS, 0x1f7
	.set IDE_CONTROL, 0x3f6
	.set NO_INTERRUPTS, 2
	.set LBA_FIRST_DRIVE, 0xe0
	.set READ_SECTORS, 0x20
	.set BUSY, 0x80
	.set READY, 0x40
	.set WANTS_DATA, 0x08
	.set FAILED, 0x21			# error, or write fault
	.set NOBODY, 0x7f
	.set WORDS, 256
	.set POLLS, 100000

	.text
guest_main:
	PARAMETER sectors, 16, 65535
	mov %eax, sectors
	mov $IDE_CONTROL, %edx
	mov $NO_INTERRUPTS, %al
	outb %al, (%dx)
	mov $IDE_DEVICE, %edx
	mov $LBA_FIRST_DRIVE, %al
	outb %al, (%dx)
	mov $IDE_STATUS, %edx
	inb (%dx), %al
	test $READY, %al
	jz no_disk
	and $NOBODY, %al
	cmp $NOBODY, %al			# a bus without drives floats, but for BUSY
	je no_disk

1:	mov $by_word, %edi
	call start_reading
	mov $WORDS, %ecx
	mov $IDE_DATA, %edx
2:	inw (%dx), %ax
	mov %ax, (%edi)
	add $2, %edi
	dec %ecx
	jnz 2b

	mov $by_string, %edi
	call start_reading
	mov $WORDS, %ecx
	mov $IDE_DATA, %edx
	rep insw

	mov $by_word, %esi
	mov $WORDS, %ecx
3:	movzwl (%esi), %eax
	add %eax, sum
	cmp by_string - by_word(%esi), %ax
	EXPECT e, 2, "the same sector read by a string instruction is another"
	add $2, %esi
	dec %ecx
	jnz 3b
	incl sector
	mov sector, %eax
	cmp sectors, %eax
	jb 1b
	SAY "idescan: "
	SAY_NUMBER sectors
	SAY " sectors, sum "
	SAY_NUMBER sum
	SAY ", ok\n"
	xor %eax, %eax
	ret

no_disk:
	SAY "idescan: there is no disk, ok\n"
	xor %eax, %eax
	ret

# Have the drive read `sector` and wait until its data are there.  EDI is kept.
start_reading:
	mov $IDE_COUNT, %edx
	mov $1, %al
	outb %al, (%dx)
	mov sector, %eax
	mov $IDE_LOW, %edx
	outb %al, (%dx)
	shr $8, %eax
	mov $IDE_MIDDLE, %edx
	outb %al, (%dx)
	xor %eax, %eax
	mov $IDE_HIGH, %edx
	outb %al, (%dx)
	mov $READ_SECTORS, %al
	mov $IDE_STATUS, %edx			# written, it is the command register
	outb %al, (%dx)
	mov $POLLS, %ecx
1:	inb (%dx), %al
	test $BUSY, %al
	jnz 2f
	test $FAILED, %al
	EXPECT z, 1, "the drive reports an error"
	test $WANTS_DATA, %al
	jnz 3f
2:	dec %ecx
	EXPECT nz, 3, "the drive stays busy"
	jmp 1b
3:	ret

	.data
	.balign 4
sectors:
	.long 0
sector:	.long 0
sum:	.long 0

	.bss
	.balign 4
by_word:
	.skip 2 * WORDS
by_string:
	.skip 2 * WORDS

	.include "lib/end.inc"
