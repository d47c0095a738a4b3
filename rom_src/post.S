# SPDX-License-Identifier: GPL-2.0-or-later
#
# What runs at power-on: firmware far-calls the ROM's entry once, in real mode, with CS = address of
# the image / 16 and AX = bus, device and function.
#
# The ROM has no device to set up and nothing to boot, so all it does is say that it is there.  The
# doorbell is left alone: whether a monitor listens is asked when a guest asks for VMI.
#
# To firmware this code is a guest: it gives back every register but AX (0: nothing to boot), all
# flags, and the stack, of which it takes some 40 bytes and what INT 10h takes.  INT 10h is the only
# service used.  Firmware without a screen may have none: a vector of 0 is left alone.  Some video BIOSes
# change BP or SI while they scroll, so nothing but the stack is counted on after a call.

	.include "version.inc"

	.set VIDEO_VECTOR, 4 * 0x10
	.set TELETYPE, 0x0e			# INT 10h, AH: write AL where the cursor is
	.set GREY, 7				# BL: for BIOSes in a graphics mode; BH: page 0

	.section .post, "ax"
	.code16
	.global post
	.type post, @function
post:
	pushf
	pusha
	push %ds
	cld
	xor %ax, %ax
	mov %ax, %ds
	mov VIDEO_VECTOR, %ax
	or VIDEO_VECTOR + 2, %ax
	jz 4f
	push %cs
	pop %ds
	mov $banner, %si			# the image is linked at 0: an offset in CS
	call print
	mov %cs, %dx
	mov $4, %cx
2:	rol $4, %dx				# the digits of CS; line_end has one more
	mov %dl, %al
	and $0x0f, %al
	cmp $10, %al
	jb 3f
	add $'a' - '0' - 10, %al
3:	add $'0', %al
	call put
	loop 2b
	mov $line_end, %si
	call print
4:	pop %ds
	popa
	popf
	mov $0, %ax				# xor would change the flags
	.byte 0xcb				# lret, far: the assemblers differ in how wide they make it

	.type print, @function
print:					# DS:SI = text with a 0 at its end
1:	lodsb
	test %al, %al
	jz 2f
	call put
	jmp 1b
2:	ret

	.type put, @function
put:					# AL = character; keeps all
	pusha
	mov $TELETYPE, %ah
	mov $GREY, %bx
	int $0x10
	popa
	ret

	.code32

	.type banner, @object
banner:
	.ascii "vmirom "
	.byte '0' + ROM_MAJOR, '.', '0' + ROM_MINOR
.if FLAVOUR_BATCHING
	.ascii " batching"
.else
	.ascii " identity"
.endif
	.asciz " at 0x"
	.type line_end, @object
line_end:
	.asciz "0\r\n"
