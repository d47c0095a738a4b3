# summary: page faults: pages on demand and copies of the page of zeros, from ring 3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: rounds=20, pages=64.
#
# A ring 3 program reads a range that is not there (each page becomes the page of zeros), then writes
# it (each page becomes a copy), then writes a second range that nobody read first, and checks all of
# it.  Faults are what this costs, with or without a ROM: batching can save the rest only.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set MOST_PAGES, 4096

	.text
guest_main:
	PARAMETER rounds, 20, 1000000
	mov %eax, rounds
	PARAMETER pages, 64, MOST_PAGES
	mov %eax, pages
	movl $1, fault_copy
	movl $1, fault_demand
	movl $USER_DATA_START, fault_low
	shl $13, %eax				# two ranges
	add $USER_DATA_START, %eax
	mov %eax, fault_high

1:	call one_round
	incl round
	mov round, %eax
	cmp rounds, %eax
	jb 1b

	# Two faults a page of the first range, one a page of the second: no fewer and no more.
	mov rounds, %eax
	mull pages
	cmp %eax, copy_faults
	EXPECT e, 4, "not every first write to the page of zeros faulted"
	add %eax, %eax
	cmp %eax, demand_faults
	EXPECT e, 5, "not every first access to an absent page faulted"
	SAY "pagefault: "
	SAY_NUMBER demand_faults
	SAY " demand faults, "
	SAY_NUMBER copy_faults
	SAY " copies on write, "
	SAY_NUMBER updates
	SAY " updates, ok\n"
	xor %eax, %eax
	ret

one_round:
	push %ebx
	call new_pgd
	mov %eax, %ebx
	call switch_to
	mov %ebx, %eax
	mov $program, %edx
	mov $program_end, %ecx
	call map_program
	mov $USER_DATA_START, %eax
	mov pages, %edx
	mov round, %ecx
	call run_program
	test %eax, %eax
	EXPECT z, 1, "the program does not read what it should"
	call check_pages

	SET_LAZY LAZY_MMU
	mov %ebx, %eax
	call clear_pages
	mov %ebx, %eax
	call free_tables
	SET_LAZY LAZY_NONE
	FLUSH_TLB
	mov $boot_pgd - KERNEL_BASE, %eax
	call switch_to
	mov %ebx, %eax
	call free_pgd
	cmpl $0, zero_page
	EXPECT e, 2, "somebody wrote to the page of zeros"
	pop %ebx
	ret

# EBX = the first address, ESI = pages in a range, EDI = round.  EAX = number of wrong words.
program:
	xor %eax, %eax
	mov %ebx, %edx
	mov %esi, %ecx
1:	cmpl $0, (%edx)
	je 2f
	inc %eax
2:	add $PAGE_BYTES, %edx
	dec %ecx
	jnz 1b

	mov %ebx, %edx
	lea (%esi,%esi), %ecx
3:	mov %edx, %ebp				# a word of its own for every page and round
	add %edi, %ebp
	mov %ebp, 4(%edx)
	add $PAGE_BYTES, %edx
	dec %ecx
	jnz 3b

	mov %ebx, %edx
	lea (%esi,%esi), %ecx
4:	mov %edx, %ebp
	add %edi, %ebp
	cmp %ebp, 4(%edx)
	je 5f
	inc %eax
5:	cmpl $0, (%edx)
	je 6f
	inc %eax
6:	add $PAGE_BYTES, %edx
	dec %ecx
	jnz 4b
	int $0x80
program_end:

# What ring 3 wrote is in the frames that the page tables name.
check_pages:
	push %ebx
	push %esi
	mov $USER_DATA_START, %ebx
	mov pages, %esi
	add %esi, %esi
1:	mov current_pgd, %eax
	mov %ebx, %edx
	call find_pte
	mov (%eax), %eax
	and $0xfffff000, %eax
	mov %ebx, %edx
	add round, %edx
	cmp %edx, KERNEL_BASE + 4(%eax)
	EXPECT e, 3, "a write from ring 3 went to another page than the mapped one"
	add $PAGE_BYTES, %ebx
	dec %esi
	jnz 1b
	pop %esi
	pop %ebx
	ret

	.data
	.balign 4
rounds:	.long 0
pages:	.long 0
round:	.long 0

	.include "lib/end.inc"
