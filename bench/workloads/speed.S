# summary: one kind of instruction at a time, so often that its cost shows
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: work=1 (see the table), rounds=1.  A round is some thousand instructions without an
# exit, or a hundred exits.  No interrupts, no ring 3, and the ROM is never called.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set WORKS, 7
	.set WORDS, 4096
	.set SORTED, 96
	.set EXITS, 100
	.set VECTOR, 0x81

	.text
guest_main:
	call open_gate
	PARAMETER work, 1, WORKS
	mov works - 4(,%eax,4), %ebp
	PARAMETER rounds, 1, 1000000000
	mov %eax, %edi
1:	push %edi
	push %ebp
	call *%ebp
	pop %ebp
	pop %edi
	dec %edi
	jnz 1b
	SAY "speed: ok\n"
	xor %eax, %eax
	ret

	.data
	.balign 4
works:	.long alu, copy, sort, calls, interrupts, ports, identify
	.text

# 4,000 instructions of arithmetic in registers.
alu:
	mov $1, %eax
	mov $0x12345, %edx
	mov $400, %ecx
1:	add %edx, %eax
	xor %ecx, %edx
	lea 3(%eax,%edx,2), %ebx
	ror $3, %ebx
	sub %ebx, %edx
	and $0xffffff, %edx
	or %ecx, %ebx
	imul %ebx, %eax
	dec %ecx
	jnz 1b
	ret

# 16 KiB, by loads and stores of a dword.
copy:
	mov $buffer, %esi
	mov $buffer + 4 * WORDS, %edi
	mov $WORDS / 4, %ecx
1:	mov (%esi), %eax
	mov 4(%esi), %ebx
	mov 8(%esi), %edx
	mov 12(%esi), %ebp
	mov %eax, (%edi)
	mov %ebx, 4(%edi)
	mov %edx, 8(%edi)
	mov %ebp, 12(%edi)
	add $16, %esi
	add $16, %edi
	dec %ecx
	jnz 1b
	ret

# Insertion sort of a falling sequence: a compare, a branch, a load and a store at each step.
sort:
	mov $SORTED, %ecx
	mov $buffer, %edi
1:	mov %ecx, (%edi)
	add $4, %edi
	dec %ecx
	jnz 1b
	mov $1, %ecx
2:	mov buffer(,%ecx,4), %eax
	mov %ecx, %edx
3:	mov buffer - 4(,%edx,4), %ebx
	cmp %eax, %ebx
	jbe 4f
	mov %ebx, buffer(,%edx,4)
	dec %edx
	jnz 3b
4:	mov %eax, buffer(,%edx,4)
	inc %ecx
	cmp $SORTED, %ecx
	jb 2b
	ret

# 500 calls three deep.
calls:
	mov $500, %ecx
1:	call outer
	dec %ecx
	jnz 1b
	ret
outer:	call middle
	ret
middle:	call inner
	ret
inner:	inc %eax
	ret

# Software interrupts and the return from each.
interrupts:
	mov $EXITS, %ecx
1:	int $VECTOR
	dec %ecx
	jnz 1b
	ret
interrupted:
	iretl

# Reads of a device.
ports:
	mov $EXITS, %ecx
1:	inb $0x61, %al
	dec %ecx
	jnz 1b
	ret

identify:
	mov $EXITS, %esi
1:	xor %eax, %eax
	cpuid
	dec %esi
	jnz 1b
	ret

open_gate:
	sub $8, %esp
	sidt (%esp)
	mov 2(%esp), %edx
	add $8, %esp
	mov $interrupted, %eax
	mov %ax, VECTOR * 8(%edx)
	movw $KERNEL_CODE, VECTOR * 8 + 2(%edx)
	movw $0x8e00, VECTOR * 8 + 4(%edx)
	shr $16, %eax
	mov %ax, VECTOR * 8 + 6(%edx)
	ret

	.bss
	.balign 4096
buffer:	.skip 8 * WORDS
	.text

	.include "lib/end.inc"
