# SPDX-License-Identifier: GPL-2.0-or-later
#
# The two calls by which a guest gets to know all others: vmi_init, once, and get_reloc, for every
# call and every patch site (about 4,200 times in a Linux boot).
#
# The ROM runs where the guest has mapped it and learns that address afresh in every function that
# needs it, by call and pop.  That pair costs two instructions and unbalances the return
# predictor; absolute addresses would need a relocation pass over memory that is read-only.

	.text

# vmi_init() -> EAX: 0, or the guest stays native.  Interrupts are off.
#
# There is always something to offer, so this never fails.  Where the doorbell's port answers, the
# host is asked to make .data writable and to watch the queue in it; the features it answers are
# the first thing written there.  Where the port floats, nothing is written, and `features` keeps
# the zero it was linked with: get_reloc reads that and the ROM behaves as the identity flavour.
	.global vmi_init
vmi_init:
.if FLAVOUR_BATCHING
	mov $DOORBELL_PORT, %edx
	in (%dx), %eax
	cmp $DOORBELL_SIGNATURE, %eax
	jne 2f
	call 1f
1:	pop %ecx
	lea queue_header - 1b(%ecx), %ecx
	mov $DOORBELL_ATTACH, %eax
	out %eax, (%dx)
	test $FEATURE_ATTACHED, %eax
	jz 2f
	call 1f
1:	pop %edx
	mov %eax, features - 1b(%edx)
	# InvalPage and FlushTLB may return at once only if the shadow follows every record.
	test $FEATURE_IN_STEP, %eax
	jz 2f
	movl $0, out_of_step - 1b(%edx)
2:
.endif
	xor %eax, %eax
	ret

# get_reloc(EAX = call number) -> EAX = address, DL = kind.
#
# The first offer of the call counts whose features the host has all granted.  A search through
# five-byte rows is slow beside a table indexed by number, but a guest asks once a site, at start;
# and the table would be most of the image.
	.set ROW_CALL, 0
	.set ROW_KIND, 1
	.set ROW_FEATURES, 2
	.set ROW_OFFSET, 3			# of the function, from the start of the image
	.set ROW_SIZE, 5
	.set NO_MORE_ROWS, 0xff

	.global get_reloc
get_reloc:
	push %ebx
	mov %eax, %ebx
	call 1f
1:	pop %edx
	lea offers - 1b(%edx), %ecx
2:	movzbl ROW_CALL(%ecx), %eax
	cmp $NO_MORE_ROWS, %eax
	je 4f
	cmp %eax, %ebx
	jne 3f
.if FLAVOUR_BATCHING
	mov features - 1b(%edx), %al
	and ROW_FEATURES(%ecx), %al
	cmp ROW_FEATURES(%ecx), %al
	jne 3f
.endif
	movzwl ROW_OFFSET(%ecx), %eax
	lea rom_start - 1b(%edx,%eax), %eax
	movzbl ROW_KIND(%ecx), %edx
	pop %ebx
	ret
3:	add $ROW_SIZE, %ecx
	jmp 2b
4:	xor %eax, %eax				# NONE: leave the native instruction in place
	xor %edx, %edx
	pop %ebx
	ret

	.section .rodata

	.macro OFFER number, function, kind=RELOC_CALL_REL, features=0
	.byte \number, \kind, \features
	.word \function
	.endm

offers:
.if FLAVOUR_BATCHING
	OFFER CALL_SetCR3, queue_SetCR3, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_GetCR3, queue_GetCR3, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_SetPxE, queue_SetPxE, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_SetPxELong, queue_SetPxELong, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_UpdatePxE, queue_UpdatePxE, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_UpdatePxELong, queue_UpdatePxE, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_AllocatePage, queue_AllocatePage, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_ReleasePage, queue_ReleasePage, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_InvalPage, queue_InvalPage, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_FlushTLB, queue_FlushTLB, RELOC_CALL_REL, FEATURE_SHADOW
	OFFER CALL_SetLinearMapping, queue_SetLinearMapping, RELOC_CALL_REL, FEATURE_SHADOW
# A delay is for slow hardware on an ISA bus; behind a doorbell there is none, and each port write
# natively is a heavy exit.  The address of a dropped operation means nothing.
	OFFER CALL_IODelay, native_IODelay, RELOC_NOP, FEATURE_ATTACHED
	OFFER CALL_SetLazyMode, queue_SetLazyMode, RELOC_CALL_REL, FEATURE_SHADOW
.endif
.if CALLS_ALL
	OFFER CALL_CPUID, native_CPUID
	OFFER CALL_WRMSR, native_WRMSR
	OFFER CALL_RDMSR, native_RDMSR
	OFFER CALL_SetGDT, native_SetGDT
	OFFER CALL_SetLDT, native_SetLDT
	OFFER CALL_SetIDT, native_SetIDT
	OFFER CALL_SetTR, native_SetTR
	OFFER CALL_GetGDT, native_GetGDT
	OFFER CALL_GetLDT, native_GetLDT
	OFFER CALL_GetIDT, native_GetIDT
	OFFER CALL_GetTR, native_GetTR
	OFFER CALL_WriteGDTEntry, native_WriteGDTEntry
	OFFER CALL_WriteLDTEntry, native_WriteLDTEntry
	OFFER CALL_WriteIDTEntry, native_WriteIDTEntry
	OFFER CALL_UpdateKernelStack, native_UpdateKernelStack
	OFFER CALL_SetCR0, native_SetCR0
	OFFER CALL_SetCR2, native_SetCR2
	OFFER CALL_SetCR3, native_SetCR3
	OFFER CALL_SetCR4, native_SetCR4
	OFFER CALL_GetCR0, native_GetCR0
	OFFER CALL_GetCR2, native_GetCR2
	OFFER CALL_GetCR3, native_GetCR3
	OFFER CALL_GetCR4, native_GetCR4
	OFFER CALL_WBINVD, native_WBINVD
	OFFER CALL_SetDR, native_SetDR
	OFFER CALL_GetDR, native_GetDR
	OFFER CALL_RDPMC, native_RDPMC
	OFFER CALL_RDTSC, native_RDTSC
	OFFER CALL_CLTS, native_CLTS
	OFFER CALL_EnableInterrupts, native_EnableInterrupts
	OFFER CALL_DisableInterrupts, native_DisableInterrupts
	OFFER CALL_GetInterruptMask, native_GetInterruptMask
	OFFER CALL_SetInterruptMask, native_SetInterruptMask
.endif
# These two are offered always: where VMI is active the guest's own fallback is a poisoned pointer.
	OFFER CALL_IRET, native_IRET, RELOC_JUMP_REL
	OFFER CALL_SYSEXIT, native_SYSEXIT, RELOC_JUMP_REL
.if CALLS_ALL
	OFFER CALL_Halt, native_Halt
	OFFER CALL_Reboot, native_Reboot
	OFFER CALL_Shutdown, native_Shutdown
	OFFER CALL_SetPxE, native_SetPxE
	OFFER CALL_SetPxELong, native_SetPxELong
	OFFER CALL_UpdatePxE, native_UpdatePxE
	OFFER CALL_UpdatePxELong, native_UpdatePxELong
	OFFER CALL_MachineToPhysical, native_MachineToPhysical
	OFFER CALL_PhysicalToMachine, native_PhysicalToMachine
	OFFER CALL_AllocatePage, native_AllocatePage
	OFFER CALL_ReleasePage, native_ReleasePage
	OFFER CALL_InvalPage, native_InvalPage
	OFFER CALL_FlushTLB, native_FlushTLB
	OFFER CALL_SetLinearMapping, native_SetLinearMapping
	OFFER CALL_SetIOPLMask, native_SetIOPLMask
.ifdef APIC_VIRTUAL_BASE
	OFFER CALL_APICWrite, native_APICWrite
	OFFER CALL_APICRead, native_APICRead
.endif
	OFFER CALL_IODelay, native_IODelay
	OFFER CALL_SetLazyMode, native_SetLazyMode
.endif
	.byte NO_MORE_ROWS
