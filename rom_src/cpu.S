# SPDX-License-Identifier: GPL-2.0-or-later
#
# Processor identification, counters, model-specific and debug registers.
#
# Native register conventions where the instruction has its own: the guest's wrapper is then no
# more than a call in place of the instruction.

	.text

.if CALLS_ALL
	.global native_CPUID
native_CPUID:				# EAX, ECX -> EAX, EBX, ECX, EDX
	cpuid
	ret

	.global native_WRMSR
native_WRMSR:				# ECX = register, EDX:EAX = value
	wrmsr
	ret

	.global native_RDMSR
native_RDMSR:				# ECX = register -> EDX:EAX
	rdmsr
	ret

	.global native_RDPMC
native_RDPMC:				# ECX = counter -> EDX:EAX
	rdpmc
	ret

	.global native_RDTSC
native_RDTSC:				# -> EDX:EAX
	rdtsc
	ret

	.global native_WBINVD
native_WBINVD:
	wbinvd
	ret

# A debug register's number is part of the instruction, so there is one instruction for each, four
# bytes with its ret, and a jump in among them.  4 and 5 are spelt as they are: what they do (6 and
# 7, or #UD with CR4.DE) is the processor's business.  Numbers beyond 7 do not exist; the
# interface has no way to complain, so they are ignored and read as 0.
	.global native_SetDR
native_SetDR:				# EAX = number, EDX = value
	cmp $8, %eax
	jae 2f
	call 1f
1:	pop %ecx
	lea set_debug_register - 1b(%ecx,%eax,4), %ecx
	jmp *%ecx
2:	ret

	.balign 4
set_debug_register:
	mov %edx, %dr0
	ret
	mov %edx, %dr1
	ret
	mov %edx, %dr2
	ret
	mov %edx, %dr3
	ret
	mov %edx, %dr4
	ret
	mov %edx, %dr5
	ret
	mov %edx, %dr6
	ret
	mov %edx, %dr7
	ret

	.global native_GetDR
native_GetDR:				# EAX = number -> EAX
	cmp $8, %eax
	jae 2f
	call 1f
1:	pop %ecx
	lea get_debug_register - 1b(%ecx,%eax,4), %ecx
	jmp *%ecx
2:	xor %eax, %eax
	ret

	.balign 4
get_debug_register:
	mov %dr0, %eax
	ret
	mov %dr1, %eax
	ret
	mov %dr2, %eax
	ret
	mov %dr3, %eax
	ret
	mov %dr4, %eax
	ret
	mov %dr5, %eax
	ret
	mov %dr6, %eax
	ret
	mov %dr7, %eax
	ret
.endif
