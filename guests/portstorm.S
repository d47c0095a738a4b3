# summary: ports, unpaged: reads, writes and delays by the thousand, as a driver of the time makes them
# layout: flat.ld
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: rounds=500.
#
# Each round reads the host bridge's identity through configuration space, a register of the clock,
# and a port where nobody is, in every width, and masks and unmasks interrupts at the controller,
# with the delays after each write that Linux makes there.  No paging and nothing that depends on
# time: the exits are the same on any processor.

	.include "lib/flat.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"

	.set PCI_ADDRESS, 0xcf8
	.set PCI_DATA, 0xcfc
	.set PCI_ENABLE, 0x80000000
	.set HOST_BRIDGE, 0x12378086
	.set CLOCK_INDEX, 0x70
	.set CLOCK_DATA, 0x71
	.set CLOCK_VALID, 0x0d
	.set PIC_MASK, 0x21
	.set NOBODY, 0x2e8
	.set PORT_WRITES, 10
	.set PORT_READS, 9

	.macro IO_DELAY				# EAX, EDX, ECX and flags are gone afterwards
	incl delays
	VMI_SITE
	outb %al, $0x80
	.skip 3, 0x90
	VMI_SITE_END CALL_IODelay
	.endm

	.text
guest_main:
	PARAMETER rounds, 500, 1000000
	mov %eax, rounds
1:	call one_round
	incl round
	mov round, %eax
	cmp rounds, %eax
	jb 1b

	cmpl $-1, floating
	EXPECT e, 6, "a port that nobody has reads as something"
	SAY "portstorm: "
	SAY_NUMBER reads
	SAY " reads, "
	SAY_NUMBER writes
	SAY " writes, "
	SAY_NUMBER delays
	SAY " delays, ok\n"
	xor %eax, %eax
	ret

one_round:
	# Who is device 0?  By dword, word and byte.
	mov $PCI_ADDRESS, %edx
	mov $PCI_ENABLE, %eax
	out %eax, (%dx)
	mov $PCI_DATA, %edx
	in (%dx), %eax
	cmp $HOST_BRIDGE, %eax
	EXPECT e, 1, "configuration space has no 440FX at device 0"
	mov $PCI_DATA + 2, %edx
	inw (%dx), %ax
	cmp $HOST_BRIDGE >> 16, %ax
	EXPECT e, 2, "half of the identity is not in its upper word"
	mov $PCI_DATA + 1, %edx
	inb (%dx), %al
	cmp $0x80, %al
	EXPECT e, 3, "a byte of the identity is not in its place"

	# The clock's index and data ports, with immediate operands.
	mov $CLOCK_VALID, %al
	outb %al, $CLOCK_INDEX
	IO_DELAY
	inb $CLOCK_DATA, %al
	test $0x80, %al
	EXPECT nz, 4, "the clock has lost its time"
	IO_DELAY

	# Nobody's port, all widths, there and back.
	mov $NOBODY, %edx
	mov round, %eax
	outb %al, (%dx)
	outw %ax, (%dx)
	outl %eax, (%dx)
	inb (%dx), %al
	and %al, floating
	inw (%dx), %ax
	and %ax, floating
	in (%dx), %eax
	and %eax, floating

	# Mask everything, look, and put it back; every write is followed by a delay.
	inb $PIC_MASK, %al
	mov %al, masks
	mov $0xff, %al
	outb %al, $PIC_MASK
	IO_DELAY
	inb $PIC_MASK, %al
	cmp $0xff, %al
	EXPECT e, 5, "the interrupt controller does not hold its mask"
	mov masks, %al
	outb %al, $PIC_MASK
	IO_DELAY

	# Two in a row, and one with an operand size that is not the default.
	xor %eax, %eax
	outb %al, $0x80
	outb %al, $0x80
	outw %ax, $0x80
	addl $PORT_READS, reads
	addl $PORT_WRITES, writes
	ret

	.data
	.balign 4
rounds:	.long 0
round:	.long 0
reads:	.long 0
writes:	.long 0
delays:	.long 0
masks:	.long 0
floating:				# all that was read where nobody is
	.long 0xffffffff

	.include "lib/end.inc"
