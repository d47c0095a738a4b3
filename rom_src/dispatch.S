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
# The queued calls come first, each only with the features that make it worth while; then the
# native ones.  EBX is not the ROM's to clobber here, and nothing here is hot.
	.global get_reloc
get_reloc:
	cmp $VMI_CALL_LIMIT, %eax
	jae 4f
	push %ebx
	call 1f
1:	pop %edx
.if FLAVOUR_BATCHING
	lea (%eax,%eax,2), %ecx			# rows of three words
	lea queued_calls - 1b(%edx,%ecx,4), %ecx
	mov 8(%ecx), %ebx			# the features it needs
	test %ebx, %ebx
	jz 2f					# no such row
	and features - 1b(%edx), %ebx
	cmp 8(%ecx), %ebx
	je 3f
2:
.endif
	lea native_calls - 1b(%edx,%eax,8), %ecx
3:	mov 4(%ecx), %edx
	mov (%ecx), %eax
	pop %ebx
	test %edx, %edx
	jz 4f
	add %ecx, %eax				# rows hold distances from themselves
	ret
4:	xor %eax, %eax				# NONE: leave the native instruction in place
	xor %edx, %edx
	ret

	.section .rodata
	.balign 4

# A row of native_calls: where the call is, as a distance from the row, and the kind of patch.
# Numbers skipped in between get empty rows, which mean NONE.
	.macro OFFER number, function, kind=RELOC_CALL_REL
	.rept \number - next_native
	.long 0, 0
	.endr
	.long \function - .
	.long \kind
	.set next_native, \number + 1
	.endm

	.set next_native, 0
native_calls:
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
	.rept VMI_CALL_LIMIT - next_native
	.long 0, 0
	.endr

.if FLAVOUR_BATCHING
# A row of queued_calls has a third word: the features without which it is not offered.
	.macro OFFER_QUEUED number, function, kind=RELOC_CALL_REL, features=FEATURE_SHADOW
	.rept \number - next_queued
	.long 0, 0, 0
	.endr
	.long \function - .
	.long \kind
	.long \features
	.set next_queued, \number + 1
	.endm

	.set next_queued, 0
queued_calls:
	OFFER_QUEUED CALL_SetCR3, queue_SetCR3
	OFFER_QUEUED CALL_GetCR3, queue_GetCR3
	OFFER_QUEUED CALL_SetPxE, queue_SetPxE
	OFFER_QUEUED CALL_SetPxELong, queue_SetPxELong
	OFFER_QUEUED CALL_UpdatePxE, queue_UpdatePxE
	OFFER_QUEUED CALL_UpdatePxELong, queue_UpdatePxE
	OFFER_QUEUED CALL_AllocatePage, queue_AllocatePage
	OFFER_QUEUED CALL_ReleasePage, queue_ReleasePage
	OFFER_QUEUED CALL_InvalPage, queue_InvalPage
	OFFER_QUEUED CALL_FlushTLB, queue_FlushTLB
	OFFER_QUEUED CALL_SetLinearMapping, queue_SetLinearMapping
# A delay is for slow hardware on an ISA bus; behind a doorbell there is none, and each port write
# natively is a heavy exit.  The address of a dropped operation means nothing.
	OFFER_QUEUED CALL_IODelay, native_IODelay, RELOC_NOP, FEATURE_ATTACHED
	OFFER_QUEUED CALL_SetLazyMode, queue_SetLazyMode
	.rept VMI_CALL_LIMIT - next_queued
	.long 0, 0, 0
	.endr
.endif
