# summary: fork: clone an address space in lazy MMU mode, run the child, copy on write, tear it down
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: rounds=50 (forks), pages=256 (in the parent), touches=4 (pages the child writes).
#
# Each round is one fork of a process that has written all its pages before.  Nearly all page-table
# stores are the copying and the clearing of entries, in lazy mode, which is what batching is for;
# a few pages are then written, so that a page-table update that never took effect is seen:
#
#	the parent writes a page right after the fork: that must fault, and the child must not see it;
#	the child writes pages from ring 3: each must fault, and the parent must not see them;
#	after the tear-down the child's addresses must fault.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set MOST_PAGES, 4096
	.set PARENT_MARK, 0x50000000
	.set CHILD_MARK, 0xc0000000

	.text
guest_main:
	PARAMETER rounds, 50, 1000000
	mov %eax, rounds
	PARAMETER pages, 256, MOST_PAGES
	mov %eax, pages
	PARAMETER touches, 4, MOST_PAGES
	cmp pages, %eax
	jbe 1f
	mov pages, %eax
1:	mov %eax, touches
	movl $1, fault_copy
	movl $USER_DATA_START, fault_low
	mov pages, %eax
	shl $12, %eax
	add $USER_DATA_START, %eax
	mov %eax, fault_high

	call make_parent
1:	call one_round
	incl round
	mov round, %eax
	cmp rounds, %eax
	jb 1b

	call check_parent
	SAY "forkstorm: "
	SAY_NUMBER rounds
	SAY " forks, "
	SAY_NUMBER updates
	SAY " updates, "
	SAY_NUMBER copy_faults
	SAY " copies on write, ok\n"
	xor %eax, %eax
	ret

# The parent: one page of text, and pages of data that it has written.
make_parent:
	push %ebx
	call new_pgd
	mov %eax, parent
	call switch_to
	mov parent, %eax
	mov $child_program, %edx
	mov $child_program_end, %ecx
	call map_program
	xor %ebx, %ebx
1:	call alloc_user_page
	or $P | RW | US | A | D, %eax
	mov %eax, %ecx
	mov parent, %eax
	mov %ebx, %edx
	shl $12, %edx
	add $USER_DATA_START, %edx
	call map_page
	mov %ebx, %eax
	call parent_writes
	inc %ebx
	cmp pages, %ebx
	jb 1b
	pop %ebx
	ret

parent_writes:				# EAX = page: a new value, through the user's mapping
	push %ebx
	mov %eax, %ebx
	mov mark, %edx
	add $PARENT_MARK, %edx
	incl mark
	mov %edx, expected(,%ebx,4)
	shl $12, %eax
	add $USER_DATA_START, %eax
	call probe_write
	EXPECT nc, 1, "the parent could not write its own page"
	pop %ebx
	ret

parent_writes_shared:			# the same, where the write must fault and copy
	push copy_faults
	call parent_writes
	pop %eax
	inc %eax
	cmp copy_faults, %eax
	EXPECT e, 2, "the parent wrote to a shared page without a fault: a stale translation"
	ret

# EAX = page, EDX = what it must hold, both in whatever address space is current.
check_page:
	push %edx
	shl $12, %eax
	add $USER_DATA_START, %eax
	call probe_read
	pop %edx
	EXPECT nc, 3, "a mapped page could not be read"
	cmp %edx, %eax
	ret

check_parent:
	push %ebx
	xor %ebx, %ebx
1:	mov %ebx, %eax
	mov expected(,%ebx,4), %edx
	call check_page
	EXPECT e, 4, "the parent does not find what it wrote"
	inc %ebx
	cmp pages, %ebx
	jb 1b
	pop %ebx
	ret

page_of_round:				# EAX = step, EDX = offset -> EAX = a page that moves on each round
	push %edx
	mull round
	pop %edx
	add %edx, %eax
	xor %edx, %edx
	divl pages
	mov %edx, %eax
	ret

one_round:
	push %ebx
	push %esi
	push %edi
	call fork
	mov %eax, child

	mov $7, %eax				# the page that the parent writes
	mov $1, %edx
	call page_of_round
	mov %eax, %ebx
	mov %eax, %edi
	mov expected(,%ebx,4), %esi		# which the child must still see
	call parent_writes_shared

	mov child, %eax
	call switch_to
	mov %ebx, %eax
	mov %esi, %edx
	call check_page
	EXPECT e, 5, "the child sees what its parent wrote after the fork"
	call run_child

	mov parent, %eax			# the parent's view, while the child lives
	call switch_to
	mov %ebx, %eax
	mov expected(,%ebx,4), %edx
	call check_page
	EXPECT e, 6, "the parent lost what it wrote after the fork"
	mov first_touched, %ebx
	mov %ebx, %eax
	mov expected(,%ebx,4), %edx
	call check_page
	EXPECT e, 7, "the parent sees what its child wrote"

	mov child, %eax
	call switch_to
	mov %ebx, %eax
	call child_value
	mov %eax, %edx
	mov %ebx, %eax
	call check_page
	EXPECT e, 8, "the child lost what it wrote"
	call exit_child

	mov %ebx, %eax				# its own again, but still protected,
	cmp %edi, %ebx				# unless it is the page that was copied before
	je 1f
	call parent_writes_shared
	jmp 2f
1:	call parent_writes
2:	mov %ebx, %eax
	mov expected(,%ebx,4), %edx
	call check_page
	EXPECT e, 9, "the parent lost what it wrote after its child's end"
	pop %edi
	pop %esi
	pop %ebx
	ret

child_value:				# EAX = page -> EAX = what the child program writes there
	shl $12, %eax
	add $USER_DATA_START, %eax
	xor $CHILD_MARK, %eax
	add round, %eax
	ret

# Ring 3 writes `touches` pages in a row; each is shared or, the one the parent copied, protected.
run_child:
	mov $13, %eax
	mov $3, %edx
	call page_of_round
	mov %eax, %edx				# not beyond the last page
	add touches, %edx
	cmp pages, %edx
	jbe 1f
	mov pages, %eax
	sub touches, %eax
1:	mov %eax, first_touched
	push copy_faults
	shl $12, %eax
	add $USER_DATA_START, %eax
	mov touches, %edx
	mov round, %ecx
	call run_program
	test %eax, %eax
	EXPECT z, 10, "the child does not read back what it wrote"
	pop %eax
	add touches, %eax
	cmp copy_faults, %eax
	EXPECT e, 11, "the child wrote to a shared page without a fault: a stale translation"
	ret

# EBX = address, ESI = pages, EDI = round.  EAX = 0 if all was well.
child_program:
	xor %eax, %eax
1:	mov %ebx, %edx
	xor $CHILD_MARK, %edx
	add %edi, %edx
	mov %edx, (%ebx)
	cmp %edx, (%ebx)
	je 2f
	inc %eax
2:	add $PAGE_BYTES, %ebx
	dec %esi
	jnz 1b
	int $0x80
child_program_end:

# dup_mmap: every page of the current address space shared, and protected on both sides, whether it
# was writable or not.  Nothing takes effect before lazy mode ends, and nothing needs to.
fork:					# -> EAX = the child's directory
	push %ebx
	push %esi
	push %edi
	push %ebp
	SET_LAZY LAZY_MMU
	call new_pgd
	mov %eax, %ebp
	xor %ebx, %ebx				# directory index
1:	mov current_pgd, %eax
	mov KERNEL_BASE(%eax,%ebx,4), %esi
	test $P, %esi
	jz 2f
	and $0xfffff000, %esi
	add $KERNEL_BASE, %esi			# the parent's table
	call new_table
	lea KERNEL_BASE(%eax), %edi		# the child's
	lea KERNEL_BASE(%ebp,%ebx,4), %edx
	or $TABLE_FLAGS, %eax
	mov $UPDATE_PD, %ecx
	SET_PXE
	call copy_table
2:	inc %ebx
	cmp $FIRST_KERNEL_ENTRY, %ebx
	jb 1b
	SET_LAZY LAZY_NONE
	FLUSH_TLB
	mov %ebp, %eax
	pop %ebp
	pop %edi
	pop %esi
	pop %ebx
	ret

copy_table:				# ESI = the parent's, EDI = the child's
	push %ebx
	push %ebp
	xor %ebx, %ebx
1:	mov (%esi,%ebx,4), %ebp
	test $P, %ebp
	jz 2f
	mov %ebp, %eax
	and $0xfffff000, %eax
	call share_page
	mov %ebp, %eax
	and $0xfffffffd, %eax			# not RW
	mov %eax, %ebp
	lea (%esi,%ebx,4), %edx
	mov $UPDATE_PT | UPDATE_DEFER, %ecx
	SET_PXE
	mov %ebp, %eax
	lea (%edi,%ebx,4), %edx
	mov $UPDATE_PT, %ecx
	SET_PXE
2:	inc %ebx
	cmp $ENTRIES, %ebx
	jb 1b
	pop %ebp
	pop %ebx
	ret

# The child's end, in its own address space: pages, then tables, then one flush for all, and only
# then the way back to the parent; the directory goes last, when nobody runs on it.
exit_child:
	SET_LAZY LAZY_MMU
	mov child, %eax
	call clear_pages
	mov child, %eax
	call free_tables
	SET_LAZY LAZY_NONE
	FLUSH_TLB
	movl $0, fault_copy			# whatever faults now is not to be mended
	mov first_touched, %eax
	shl $12, %eax
	add $USER_DATA_START, %eax
	call probe_read
	EXPECT c, 12, "an unmapped page can still be read: a stale translation"
	movl $1, fault_copy
	mov parent, %eax
	call switch_to
	mov child, %eax
	jmp free_pgd

	.data
	.balign 4
rounds:	.long 0
pages:	.long 0
touches:
	.long 0
round:	.long 0
mark:	.long 0
parent:	.long 0
child:	.long 0
first_touched:
	.long 0
	.bss
	.balign 4
expected:
	.skip MOST_PAGES * 4

	.include "lib/end.inc"
