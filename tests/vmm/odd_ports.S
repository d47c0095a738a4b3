# disk: 64
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Native port accesses of every form, three times each: what comes of them is printed.  With and without
# reflection that must be the same.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set ATA_DATA, 0x1f0
	.set ATA_COUNT, 0x1f2
	.set ATA_LOW, 0x1f3
	.set ATA_COMMAND, 0x1f7
	.set ATA_CONTROL, 0x3f6
	.set ATA_IDENTIFY, 0xec
	.set UART_STATUS, 0x3fd
	.set USER, 0x10000000
	.set USER_END, 0x10010000

	.macro TELL value
	mov \value, %eax
	call print_hex
	SAY " "
	.endm

	.text
guest_main:
	movl $USER, fault_low
	movl $USER_END, fault_high
	movl $1, fault_demand
	mov $ATA_CONTROL, %edx
	mov $2, %al
	out %al, (%dx)
	movl $3, rounds
1:	call registers_are_kept
	call words
	call single_strings
	call identify_down
	call identify_up
	call identify_absent
	call one_place_many_ports
	call odd_stack
	call read_beyond
	SAY "\n"
	decl rounds
	jnz 1b
	call bad_table
	xor %eax, %eax
	ret

registers_are_kept:
	mov $ATA_LOW, %edx
	mov $0x5a, %al
	out %al, (%dx)
	mov $0x11111111, %eax
	mov $0x22222222, %ebx
	mov $0x33333333, %ecx
	mov $0x55550000 + ATA_LOW, %edx
	mov $0x66666666, %esi
	mov $0x77777777, %edi
	mov $0x88888888, %ebp
	cmp $0x7fffffff, %ebx			# some flags
	in (%dx), %al
	pushfl
	pushal
	mov $9, %ecx
2:	pop %eax
	cmp $5, %ecx				# ESP, as it was: the same place each time
	call print_hex
	loop 2b
	SAY " "
	ret

words:
	mov $ATA_COUNT, %edx
	mov $0x3412, %ax
	out %ax, (%dx)				# two registers
	xor %eax, %eax
	in (%dx), %ax
	call print_hex
	mov $-1, %eax
	in (%dx), %eax				# four
	call print_hex
	SAY " "
	ret

single_strings:
	mov $ATA_LOW, %edx
	mov $text, %esi
	mov $0x12345678, %ecx
	cld
	outsb
	outsb
	mov $buffer, %edi
	insb
	sub $text, %esi
	sub $buffer, %edi
	TELL %ecx
	TELL %esi
	TELL %edi
	mov $3, %ecx
	mov $text, %esi
	rep outsb
	std
	mov $text + 1, %esi
	mov $2, %ecx
	rep outsb
	cld
	xor %ecx, %ecx
	rep insb				# nothing
	in (%dx), %al
	mov %al, buffer + 1
	TELL buffer
	TELL %ecx
	ret

identify:
	mov $ATA_COMMAND, %edx
	mov $ATA_IDENTIFY, %al
	out %al, (%dx)
	in (%dx), %al
	mov $ATA_DATA, %edx
	mov $256, %ecx
	ret

identify_up:
	call identify
	mov $buffer, %edi
	cld
	rep insw
	mov $buffer, %esi
	jmp sum

identify_down:
	call identify
	mov $buffer + 510, %edi
	std
	rep insw
	cld
	mov $buffer, %esi
	jmp sum

# A page that is made when it is touched, in the middle of the string.
identify_absent:
	call identify
	mov absent, %edi
	addl $0x2000, absent
	rep insw
	lea -512(%edi), %esi
	jmp sum

sum:
	mov $128, %ecx
	xor %ebx, %ebx
3:	lodsl
	rol $3, %ebx
	xor %eax, %ebx
	loop 3b
	TELL %ebx
	ret

one_place_many_ports:
	mov $ports, %esi
	mov $4, %ecx
4:	lodsl
	mov %eax, %edx
	mov $0xa5a5a5a5, %eax
	in (%dx), %al
	call print_hex
	loop 4b
	SAY " "
	ret

odd_stack:
	mov $ATA_LOW, %edx
	sub $2, %esp
	in (%dx), %al
	add $2, %esp
	movzbl %al, %ebx
	TELL %ebx
	ret

# More words than there are: the rest reads as ones.
read_beyond:
	call identify
	mov $300, %ecx
	mov $buffer, %edi
	rep insw
	TELL buffer+510
	TELL buffer+514
	ret

bad_table:
	mov $tables, %esi
	mov $3, %ebx
5:	lodsl
	mov %eax, %ecx
	mov $DOORBELL_REFLECT, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
	call print_hex
	dec %ebx
	jnz 5b
	SAY "\n"
	ret

	.data
	.balign 4
text:	.ascii "abcdef"
	.balign 4
ports:	.long ATA_LOW, UART_STATUS, ATA_COMMAND, 0x21
tables:	.long 0xfffffffc, buffer, KERNEL_BASE + 0xc0000	# absent, not in the ROM, no table
absent:	.long USER + 0x1000 - 256
rounds:	.long 0
	.bss
	.balign 4
buffer:	.skip 1024

	.include "lib/end.inc"
