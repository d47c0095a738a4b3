# SPDX-License-Identifier: GPL-2.0-or-later
#
# The interrupt flag, the ways back from an interrupt, and the ways to stop.
#
# The first four are two thirds of all calls a Linux kernel makes.  They are called from entry code
# where DS and ES still hold what the user left in them, with live values in every register: so they
# use nothing but flags and the stack.

	.text

.if CALLS_ALL
	.global native_EnableInterrupts
native_EnableInterrupts:
	sti
	ret

	.global native_DisableInterrupts
native_DisableInterrupts:
	cli
	ret

	.global native_GetInterruptMask
native_GetInterruptMask:		# -> EAX; bit 9 is IF
	pushfl
	pop %eax
	ret

	.global native_SetInterruptMask
native_SetInterruptMask:		# EAX = what GetInterruptMask gave
	push %eax
	popfl
	ret
.endif

# The guest jumps here with nothing on the stack but the frame.  An iret that faults (a bad user
# selector) faults inside the ROM, which is in nobody's exception table: a weakness of the interface
# that every VMI ROM shares.
	.global native_IRET
native_IRET:
	iretl

# STI holds interrupts off for one instruction more, and that one is the return: no interrupt can
# come in between and find the kernel half gone.
	.global native_SYSEXIT
native_SYSEXIT:				# EDX = eip, ECX = esp
	sti
	sysexit

.if CALLS_ALL
	.global native_SetIOPLMask
native_SetIOPLMask:			# EAX = bits 12 and 13 of the flags
	pushfl
	pop %edx
	and $0xffffcfff, %edx
	or %eax, %edx
	push %edx
	popfl
	ret

# The same shadow makes this race-free: an interrupt that is pending at the STI ends the HLT.
	.global native_Halt
native_Halt:
	sti
	hlt
	ret

# Nothing in the interface says where power management is, so the machine stands still.
	.global native_Shutdown
native_Shutdown:
	cli
1:	hlt
	jmp 1b

# Soft and hard are one here: a soft reset is told to the BIOS by a word at physical 0x472, and the
# ROM cannot know where, or whether, the guest has that page mapped.  The keyboard controller's
# reset line first; a PC without one shuts down on the third fault, and its chipset resets on that.
	.global native_Reboot
native_Reboot:				# EAX = 0 soft, 1 hard
	cli
	mov $0x10000, %ecx
1:	inb $0x64, %al
	test $2, %al				# the controller has not taken the last byte yet
	jz 2f
	dec %ecx
	jnz 1b
2:	mov $0xfe, %al
	outb %al, $0x64
	mov $0x10000, %ecx
3:	inb $0x64, %al				# the line takes some microseconds
	dec %ecx
	jnz 3b
	push $0
	push $0
	lidt (%esp)				# no handlers at all
	int3
4:	hlt
	jmp 4b
.endif
