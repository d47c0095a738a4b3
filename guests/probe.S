# summary: probe: make every call that can be made safely once, and compare with what the machine says
# SPDX-License-Identifier: GPL-2.0-or-later
#
# No workload.  Each call is made through a site, so that without a ROM its native instruction runs
# and with one the ROM's; either way the result is compared with what plain instructions around it
# say.  Not made: calls that stop or reset the machine, SYSEXIT and RDPMC, which not every processor
# model has, SetTR, whose segment is busy, and the page-table calls, which the workloads make.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set IF, 0x200
	.set IOPL, 0x3000
	.set CR0_TS, 8
	.set CR4_PGE, 0x80
	.set MSR_APIC_BASE, 0x1b

# A site of one instruction, padded to at least five bytes; sites of several are spelt out between
# the two halves.
	.macro PROBE call, instruction:vararg
	PROBE_START
	\instruction
	.skip 4, 0x90
	PROBE_END \call
	.endm

	.macro PROBE_START
	incl calls_made
	VMI_SITE
	.endm

	.macro PROBE_END call
	VMI_SITE_END CALL_\call
	.endm

	.text
guest_main:
	# STI is among the probes, and nobody here serves a device.
	mov $0xff, %al
	outb %al, $0x21
	outb %al, $0xa1
	call probe_interrupt_flag
	call probe_tables
	call probe_control
	call probe_debug
	call probe_processor
	call probe_flushes
	call probe_ports
	SAY "probe: "
	SAY_NUMBER calls_made
	SAY " calls, ok\n"
	xor %eax, %eax
	ret

# These keep every register, not only those that calls keep in general.
probe_interrupt_flag:
	mov $0x11111111, %ecx
	mov $0x22222222, %edx
	mov $0x33333333, %eax
	PROBE EnableInterrupts, sti
	cmp $0x33333333, %eax
	EXPECT e, 1, "EnableInterrupts changes EAX"
	pushfl
	pop %eax
	test $IF, %eax
	EXPECT nz, 2, "EnableInterrupts does not"
	PROBE_START
	pushfl
	pop %eax
	.skip 4, 0x90
	PROBE_END GetInterruptMask
	test $IF, %eax
	EXPECT nz, 3, "GetInterruptMask misses IF"
	mov %eax, %ebx
	PROBE DisableInterrupts, cli
	cmp %ebx, %eax
	EXPECT e, 4, "DisableInterrupts changes EAX"
	pushfl
	pop %eax
	test $IF, %eax
	EXPECT z, 5, "DisableInterrupts does not"
	mov %ebx, %eax
	PROBE_START
	push %eax
	popfl
	.skip 4, 0x90
	PROBE_END SetInterruptMask
	pushfl
	pop %eax
	test $IF, %eax
	EXPECT nz, 6, "SetInterruptMask does not restore IF"
	cli
	cmp $0x11111111, %ecx
	EXPECT e, 7, "an interrupt-flag call changes ECX"
	cmp $0x22222222, %edx
	EXPECT e, 8, "an interrupt-flag call changes EDX"

	mov $IOPL, %eax
	PROBE_START
	pushfl
	or %eax, (%esp)
	popfl
	.skip 4, 0x90
	PROBE_END SetIOPLMask
	pushfl
	pop %eax
	and $IOPL, %eax
	cmp $IOPL, %eax
	EXPECT e, 9, "SetIOPLMask does not set IOPL"
	push $2
	popfl
	ret

probe_tables:
	mov $pointer, %eax
	PROBE GetGDT, sgdt (%eax)
	cmpl $gdt, pointer + 2
	EXPECT e, 10, "GetGDT finds another table"
	mov $pointer, %eax
	PROBE SetGDT, lgdt (%eax)
	mov $pointer, %eax
	PROBE GetIDT, sidt (%eax)
	cmpl $idt, pointer + 2
	EXPECT e, 11, "GetIDT finds another table"
	mov $pointer, %eax
	PROBE SetIDT, lidt (%eax)
	PROBE GetTR, str %eax
	cmp $TASK, %ax
	EXPECT e, 12, "GetTR finds another selector"
	xor %eax, %eax
	PROBE SetLDT, lldt %ax
	PROBE GetLDT, sldt %eax
	test %ax, %ax
	EXPECT z, 13, "GetLDT finds a selector that was not set"

	mov $descriptors, %eax
	mov $1, %edx
	mov $0x11112222, %ecx
	push $0x33334444
	PROBE_START
	mov %ecx, (%eax,%edx,8)
	pop %ecx
	push %ecx
	mov %ecx, 4(%eax,%edx,8)
	PROBE_END WriteGDTEntry
	add $4, %esp
	cmpl $0x11112222, descriptors + 8
	EXPECT e, 14, "WriteGDTEntry writes something else"
	cmpl $0x33334444, descriptors + 12
	EXPECT e, 15, "WriteGDTEntry writes another high half"
	ret

probe_control:
	PROBE GetCR0, mov %cr0, %eax
	mov %eax, %ebx
	or $CR0_TS, %eax
	PROBE SetCR0, mov %eax, %cr0
	mov %cr0, %eax
	test $CR0_TS, %eax
	EXPECT nz, 16, "SetCR0 does not set TS"
	PROBE CLTS, clts
	mov %cr0, %eax
	cmp %ebx, %eax
	EXPECT e, 17, "CLTS leaves another CR0 than before"
	mov $0x12345678, %eax
	PROBE SetCR2, mov %eax, %cr2
	PROBE GetCR2, mov %cr2, %eax
	cmp $0x12345678, %eax
	EXPECT e, 18, "GetCR2 does not return what SetCR2 set"
	PROBE GetCR3, mov %cr3, %eax
	cmp $boot_pgd - KERNEL_BASE, %eax
	EXPECT e, 19, "GetCR3 finds another directory"
	PROBE GetCR4, mov %cr4, %eax
	test $CR4_PGE, %eax
	EXPECT nz, 20, "GetCR4 misses PGE"
	mov %eax, %ebx
	PROBE SetCR4, mov %eax, %cr4
	mov %cr4, %eax
	cmp %ebx, %eax
	EXPECT e, 21, "SetCR4 sets something else"
	ret

# Register 3 only natively: the number is part of the instruction.
probe_debug:
	mov $3, %eax
	mov $0x00123456, %edx
	PROBE SetDR, mov %edx, %dr3
	mov $3, %eax
	PROBE GetDR, mov %dr3, %eax
	cmp $0x00123456, %eax
	EXPECT e, 22, "GetDR does not return what SetDR set"
	ret

probe_processor:
	xor %eax, %eax
	xor %ecx, %ecx
	PROBE CPUID, cpuid
	mov %ebx, %esi
	mov %ecx, %edi
	mov %edx, %ebp
	xor %eax, %eax
	xor %ecx, %ecx
	cpuid
	cmp %ebx, %esi
	EXPECT e, 23, "CPUID gives another EBX"
	cmp %ecx, %edi
	EXPECT e, 24, "CPUID gives another ECX"
	cmp %edx, %ebp
	EXPECT e, 25, "CPUID gives another EDX"

	mov $MSR_APIC_BASE, %ecx
	rdmsr
	mov %eax, %esi
	mov %edx, %edi
	mov $MSR_APIC_BASE, %ecx
	PROBE WRMSR, wrmsr
	mov $MSR_APIC_BASE, %ecx
	PROBE RDMSR, rdmsr
	cmp %eax, %esi
	EXPECT e, 29, "RDMSR does not return what WRMSR set"
	cmp %edx, %edi
	EXPECT e, 30, "RDMSR does not return the high half that WRMSR set"

	rdtsc
	mov %eax, %esi
	mov %edx, %edi
	PROBE RDTSC, rdtsc
	sub %esi, %eax
	sbb %edi, %edx
	EXPECT nc, 26, "the time-stamp counter goes backwards"

	mov $0x12345, %eax
	PROBE MachineToPhysical, nop
	PROBE PhysicalToMachine, nop
	cmp $0x12345, %eax
	EXPECT e, 27, "machine and physical frames differ"
	ret

# Nothing to compare: afterwards everything is still where it was.
probe_flushes:
	PROBE WBINVD, wbinvd
	mov $TLB_FLUSH_TLB | TLB_FLUSH_GLOBAL, %eax
	PROBE_START
	mov %cr4, %eax
	mov %eax, %edx
	and $0xffffff7f, %edx
	mov %edx, %cr4
	mov %eax, %cr4
	PROBE_END FlushTLB
	mov %cr4, %eax
	test $CR4_PGE, %eax
	EXPECT nz, 28, "FlushTLB turns global pages off"
	mov $gdt, %eax
	PROBE InvalPage, invlpg (%eax)
	PROBE IODelay, outb %al, $0x80
	ret

# The PCI host bridge's first register, 32 bits, in all widths; and the PIC's mask, which is all ones.
	.set PCI_ADDRESS, 0xcf8
	.set PCI_DATA, 0xcfc
	.set PCI_FIRST, 0x80000000
	.set PIC_MASK, 0x21
	.set POST_CODE, 0x80

	.macro PORT_PROBE call
	incl calls_made
	PORT \call
	.endm

probe_ports:
	mov $PCI_ADDRESS, %edx
	mov $PCI_FIRST, %eax
	PORT_PROBE OUT
	mov $PCI_DATA, %edx
	in (%dx), %eax
	mov %eax, %ebx
	mov $PCI_DATA, %edx
	PORT_PROBE IN
	cmp %ebx, %eax
	EXPECT e, 31, "IN reads something else"
	mov $PCI_DATA, %edx
	PORT_PROBE INW
	cmp %bx, %ax
	EXPECT e, 32, "INW reads something else"
	mov $PIC_MASK, %edx
	mov $0xfe, %eax
	PORT_PROBE OUTB
	mov $PIC_MASK, %edx
	xor %eax, %eax
	PORT_PROBE INB
	cmp $0xfe, %al
	EXPECT e, 33, "INB does not read what OUTB wrote"
	mov $PIC_MASK, %edx
	mov $0xff, %eax
	outb %al, (%dx)
	mov $PCI_ADDRESS, %edx		# a narrow write there is no address
	mov $0x1234, %eax
	PORT_PROBE OUTW

	mov $PCI_DATA, %edx
	mov $2, %ecx
	mov $descriptors, %edi
	PORT_PROBE INS
	test %ecx, %ecx
	EXPECT z, 34, "INS leaves ECX"
	cmp $descriptors + 8, %edi
	EXPECT e, 35, "INS leaves EDI elsewhere"
	cmp %ebx, descriptors
	EXPECT e, 36, "INS reads something else"
	cmp %ebx, descriptors + 4
	EXPECT e, 36, "INS reads something else"
	mov $PCI_DATA, %edx
	mov $3, %ecx
	mov $descriptors + 12, %edi
	std
	PORT_PROBE INSW
	cld
	cmp $descriptors + 6, %edi
	EXPECT e, 37, "INSW goes the wrong way"
	cmp %bx, descriptors + 8
	EXPECT e, 38, "INSW reads something else"
	movl $0, descriptors
	mov $PIC_MASK, %edx
	mov $3, %ecx
	mov $descriptors, %edi
	PORT_PROBE INSB
	cmpl $0x00ffffff, descriptors
	EXPECT e, 39, "INSB reads something else"

	mov $PCI_ADDRESS, %edx
	mov $1, %ecx
	mov $pci_second, %esi
	PORT_PROBE OUTS
	cmp $pci_second + 4, %esi
	EXPECT e, 40, "OUTS leaves ESI elsewhere"
	mov $PCI_ADDRESS, %edx
	in (%dx), %eax
	cmp $PCI_FIRST + 8, %eax
	EXPECT e, 41, "OUTS writes something else"
	mov $POST_CODE, %edx
	xor %ecx, %ecx			# a count of 0 does nothing
	mov $pci_second, %esi
	PORT_PROBE OUTSB
	cmp $pci_second, %esi
	EXPECT e, 42, "OUTSB writes without being asked to"
	mov $POST_CODE, %edx
	mov $2, %ecx
	PORT_PROBE OUTSW
	cmp $pci_second + 4, %esi
	EXPECT e, 43, "OUTSW leaves ESI elsewhere"
	ret

	.data
	.balign 4
pci_second:
	.long PCI_FIRST + 8
calls_made:
	.long 0
pointer:
	.long 0, 0
descriptors:
	.long 0, 0, 0, 0, 0, 0

	.include "lib/end.inc"
