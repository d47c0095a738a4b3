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
	jz 3f
	movl $0, out_of_step - 1b(%edx)
3:	test $FEATURE_REFLECT, %eax
	jz 2f
	lea reflection - 1b(%edx), %ecx
	mov $DOORBELL_REFLECT, %eax
	mov $DOORBELL_PORT, %edx
	out %eax, (%dx)
2:
.endif
	xor %eax, %eax
	ret

# get_reloc(EAX = call number) -> EAX = address, DL = kind.
#
# The first offer of the call counts whose features the host has all granted.  A byte a call number
# leads to its offers, which follow each other: a guest asks thousands of times while it patches.
	.set ROW_CALL, 0
	.set ROW_KIND, 1
	.set ROW_FEATURES, 2
	.set ROW_OFFSET, 4			# of the function, from the start of the image
	.set ROW_SIZE, 6
	.set NO_ROW, 0xff

	.global get_reloc
get_reloc:
	cmp $VMI_CALL_LIMIT, %eax
	jae 4f
	push %ebx
	mov %eax, %ebx
	call 1f
1:	pop %edx
	movzbl offer_index - 1b(%edx,%eax), %ecx
	cmp $NO_ROW, %ecx
	je 3f
	lea (%ecx,%ecx,2), %ecx			# rows of six bytes
	lea offers - 1b(%edx,%ecx,2), %ecx
.if FLAVOUR_BATCHING
2:	mov features - 1b(%edx), %eax
	and ROW_FEATURES(%ecx), %ax
	cmp ROW_FEATURES(%ecx), %ax
	je 5f
	add $ROW_SIZE, %ecx
	cmp %bl, ROW_CALL(%ecx)
	je 2b
3:	pop %ebx
4:	xor %eax, %eax				# NONE: leave the native instruction in place
	xor %edx, %edx
	ret
5:
.endif
	movzwl ROW_OFFSET(%ecx), %eax
	lea rom_start - 1b(%edx,%eax), %eax
	movzbl ROW_KIND(%ecx), %edx
	pop %ebx
	ret
.if !FLAVOUR_BATCHING
3:	pop %ebx
4:	xor %eax, %eax
	xor %edx, %edx
	ret
.endif

# Offers come in the order of call numbers, a call's queued one before its native one.
	.macro OFFER number, function, kind=RELOC_CALL_REL, features=0
	.section .rodata.index
.if \number >= next_number
	.rept \number - next_number
	.byte NO_ROW
	.endr
	.byte next_row
	.set next_number, \number + 1
.endif
	.section .rodata
	.byte \number, \kind
	.word \features, \function
	.set next_row, next_row + 1
	.endm

# A call that queues, or has something to remember of its processor.
	.macro OFFER_QUEUED call, function
	OFFER CALL_\call, queue_\function, RELOC_CALL_REL, FEATURE_SHADOW | FEATURE_ALONE
	OFFER CALL_\call, several_\function, RELOC_CALL_REL, FEATURE_SHADOW
	.endm

# A port call: the ROM's own IDE channels for a host that hands them over.
	.macro OFFER_PORT name
.if FLAVOUR_BATCHING
	OFFER CALL_\name, port_\name, RELOC_CALL_REL, FEATURE_IDE
.endif
.if CALLS_ALL
	OFFER CALL_\name, native_\name
.endif
	.endm

	.set next_number, 0
	.set next_row, 0

	.section .rodata.index
offer_index:
	.section .rodata
offers:
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
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED SetCR3, SetCR3
.endif
.if CALLS_ALL
	OFFER CALL_SetCR3, native_SetCR3
	OFFER CALL_SetCR4, native_SetCR4
	OFFER CALL_GetCR0, native_GetCR0
	OFFER CALL_GetCR2, native_GetCR2
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED GetCR3, GetCR3
.endif
.if CALLS_ALL
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
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED SetPxE, SetPxE
.endif
.if CALLS_ALL
	OFFER CALL_SetPxE, native_SetPxE
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED SetPxELong, SetPxELong
.endif
.if CALLS_ALL
	OFFER CALL_SetPxELong, native_SetPxELong
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED UpdatePxE, UpdatePxE
.endif
.if CALLS_ALL
	OFFER CALL_UpdatePxE, native_UpdatePxE
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED UpdatePxELong, UpdatePxE
.endif
.if CALLS_ALL
	OFFER CALL_UpdatePxELong, native_UpdatePxELong
	OFFER CALL_MachineToPhysical, native_MachineToPhysical
	OFFER CALL_PhysicalToMachine, native_PhysicalToMachine
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED AllocatePage, AllocatePage
.endif
.if CALLS_ALL
	OFFER CALL_AllocatePage, native_AllocatePage
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED ReleasePage, ReleasePage
.endif
.if CALLS_ALL
	OFFER CALL_ReleasePage, native_ReleasePage
.endif
.if FLAVOUR_BATCHING
	OFFER CALL_InvalPage, queue_InvalPage, RELOC_CALL_REL, FEATURE_SHADOW
.endif
.if CALLS_ALL
	OFFER CALL_InvalPage, native_InvalPage
.endif
.if FLAVOUR_BATCHING
	OFFER CALL_FlushTLB, queue_FlushTLB, RELOC_CALL_REL, FEATURE_SHADOW
.endif
.if CALLS_ALL
	OFFER CALL_FlushTLB, native_FlushTLB
.endif
.if FLAVOUR_BATCHING
	OFFER_QUEUED SetLinearMapping, SetLinearMapping
.endif
.if CALLS_ALL
	OFFER CALL_SetLinearMapping, native_SetLinearMapping
.endif
	OFFER_PORT IN
	OFFER_PORT INB
	OFFER_PORT INW
	OFFER_PORT INS
	OFFER_PORT INSB
	OFFER_PORT INSW
	OFFER_PORT OUT
	OFFER_PORT OUTB
	OFFER_PORT OUTW
	OFFER_PORT OUTS
	OFFER_PORT OUTSB
	OFFER_PORT OUTSW
.if CALLS_ALL
	OFFER CALL_SetIOPLMask, native_SetIOPLMask
.endif
.if FLAVOUR_BATCHING
	OFFER CALL_SetInitialAPState, ring_SetInitialAPState, RELOC_CALL_REL, FEATURE_START_AP
.endif
.if CALLS_ALL
	OFFER CALL_SetInitialAPState, native_SetInitialAPState
.endif
.if FLAVOUR_BATCHING
	OFFER CALL_APICWrite, apic_APICWrite, RELOC_CALL_REL, FEATURE_APIC
.endif
.ifdef APIC_VIRTUAL_BASE
	OFFER CALL_APICWrite, native_APICWrite
.endif
.if FLAVOUR_BATCHING
	OFFER CALL_APICRead, apic_APICRead, RELOC_CALL_REL, FEATURE_APIC
.endif
.ifdef APIC_VIRTUAL_BASE
	OFFER CALL_APICRead, native_APICRead
.endif
.if FLAVOUR_BATCHING
# A delay is for slow hardware on an ISA bus; behind a doorbell there is none, and each port write
# natively is a heavy exit.  The address of a dropped operation means nothing.
	OFFER CALL_IODelay, native_IODelay, RELOC_NOP, FEATURE_ATTACHED
.endif
.if CALLS_ALL
	OFFER CALL_IODelay, native_IODelay
.endif
.if FLAVOUR_BATCHING & TIMER_CALLS
	OFFER CALL_GetCycleFrequency, timer_GetCycleFrequency, RELOC_CALL_REL, FEATURE_CLOCK
	OFFER CALL_GetCycleCounter, timer_GetCycleCounter, RELOC_CALL_REL, FEATURE_CLOCK
	OFFER CALL_SetAlarm, timer_SetAlarm, RELOC_CALL_REL, FEATURE_CLOCK
	OFFER CALL_CancelAlarm, timer_CancelAlarm, RELOC_CALL_REL, FEATURE_CLOCK
	OFFER CALL_GetWallclockTime, timer_GetWallclockTime, RELOC_CALL_REL, FEATURE_CLOCK
	OFFER CALL_WallclockUpdated, timer_WallclockUpdated, RELOC_CALL_REL, FEATURE_CLOCK
.endif
.if FLAVOUR_BATCHING & VISIBILITY_STRICT
	OFFER_QUEUED SetLazyMode, SetLazyMode
.endif
.if CALLS_ALL
	OFFER CALL_SetLazyMode, native_SetLazyMode
.endif
	.byte NO_ROW				# no call's: ends the search
	.section .rodata.index
	.rept VMI_CALL_LIMIT - next_number
	.byte NO_ROW
	.endr
