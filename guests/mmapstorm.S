# summary: mmap: map pages, touch them, change their protection, unmap them page by page or at once
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: rounds=20, pages=64.
#
# Ring 0 works on user mappings, as a kernel's copy_to_user does.  Even rounds unmap page by page,
# each with its invalidation, and every second page by a plain store followed by UpdatePxE; odd rounds
# unmap in lazy mode with one flush at the end.  Checked are the contents behind every mapping, the
# accessed and dirty bits, and that what was taken away is gone.

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
	call new_pgd
	mov %eax, space
	call switch_to

1:	call map_all
	call touch_all
	call protect_half
	testb $1, round
	jnz 2f
	call unmap_each
	jmp 3f
2:	call unmap_at_once
3:	call check_unmapped
	incl round
	mov round, %eax
	cmp rounds, %eax
	jb 1b

	mov space, %eax
	call free_tables
	FLUSH_TLB
	mov $boot_pgd - KERNEL_BASE, %eax
	call switch_to
	mov space, %eax
	call free_pgd
	SAY "mmapstorm: "
	SAY_NUMBER rounds
	SAY " rounds of "
	SAY_NUMBER pages
	SAY " pages, "
	SAY_NUMBER updates
	SAY " updates, ok\n"
	xor %eax, %eax
	ret

address_of:				# EAX = page -> EAX = its user address
	shl $12, %eax
	add $USER_DATA_START, %eax
	ret

entry_of:				# EAX = page -> EAX = its entry
	call address_of
	mov %eax, %edx
	mov space, %eax
	jmp find_pte

value_of:				# EAX = page -> EAX = what this round puts there
	mov round, %edx
	shl $16, %edx
	lea 1(%eax,%edx), %eax
	ret

# Fill frames through the linear map, map them, and read through the mapping: a new mapping shows
# the new frame, whatever was there the round before.
map_all:
	push %ebx
	push %esi
	xor %ebx, %ebx
1:	call alloc_user_page
	mov %eax, %esi
	mov %ebx, %eax
	call value_of
	mov %eax, KERNEL_BASE(%esi)
	mov %ebx, %eax
	call address_of
	mov %eax, %edx
	mov %esi, %ecx
	or $P | RW | US, %ecx
	mov space, %eax
	call map_page
	mov %ebx, %eax
	call value_of
	mov %eax, %esi
	mov %ebx, %eax
	call address_of
	call probe_read
	EXPECT nc, 1, "a page that was just mapped faults"
	cmp %esi, %eax
	EXPECT e, 2, "a mapping shows another page than the one just mapped"
	inc %ebx
	cmp pages, %ebx
	jb 1b
	pop %esi
	pop %ebx
	ret

# Write through the mapping, look through the linear map, and at the accessed and dirty bits.
touch_all:
	push %ebx
	push %esi
	xor %ebx, %ebx
1:	mov %ebx, %eax
	call value_of
	not %eax
	mov %eax, %edx
	mov %eax, %esi
	mov %ebx, %eax
	call address_of
	call probe_write
	EXPECT nc, 3, "a writable page faults on a write"
	mov %ebx, %eax
	call entry_of
	mov (%eax), %edx
	mov %edx, %eax
	and $A | D, %eax
	cmp $A | D, %eax
	EXPECT e, 4, "a written page is not marked accessed and dirty"
	and $0xfffff000, %edx
	cmp %esi, KERNEL_BASE(%edx)
	EXPECT e, 5, "a write went to another page than the mapped one"
	inc %ebx
	cmp pages, %ebx
	jb 1b
	pop %esi
	pop %ebx
	ret

# The first half read-only in lazy mode, with one flush; then writable again one by one.
protect_half:
	push %ebx
	push %esi
	mov pages, %esi
	shr $1, %esi
	jz 5f
	SET_LAZY LAZY_MMU
	xor %ebx, %ebx
1:	mov %ebx, %eax
	call entry_of
	mov %eax, %edx
	mov (%edx), %eax
	and $0xfffffffd, %eax			# not RW
	mov $UPDATE_PT | UPDATE_DEFER, %ecx
	SET_PXE
	inc %ebx
	cmp %esi, %ebx
	jb 1b
	SET_LAZY LAZY_NONE
	FLUSH_TLB

	xor %ebx, %ebx
2:	mov %ebx, %eax
	call address_of
	mov $0xdeadbeef, %edx
	call probe_write
	EXPECT c, 6, "a protected page can still be written: a stale translation"
	mov %ebx, %eax
	call address_of
	call probe_read
	EXPECT nc, 7, "a protected page cannot be read"
	cmp $0xdeadbeef, %eax
	EXPECT ne, 8, "a write that faulted was done nevertheless"
	mov %ebx, %eax
	call entry_of
	mov %eax, %edx
	mov (%edx), %eax
	or $RW, %eax
	mov $UPDATE_PT, %ecx
	SET_PXE
	mov %ebx, %eax
	call address_of
	INVAL_PAGE
	mov %ebx, %eax
	call address_of
	mov %ebx, %edx
	call probe_write
	EXPECT nc, 9, "a page that is writable again faults on a write"
	inc %ebx
	cmp %esi, %ebx
	jb 2b
5:	pop %esi
	pop %ebx
	ret

unmap_each:
	push %ebx
	push %esi
	xor %ebx, %ebx
1:	mov %ebx, %eax
	call entry_of
	mov %eax, %edx
	mov (%edx), %esi
	testb $1, %bl
	jnz 2f
	xor %eax, %eax
	mov $UPDATE_PT, %ecx
	SET_PXE
	jmp 3f
2:	movl $0, (%edx)				# get and clear, then tell
	mov %edx, %eax
	mov $UPDATE_PT, %edx
	UPDATE_PXE
3:	mov %ebx, %eax
	call address_of
	INVAL_PAGE
	mov %ebx, %eax
	call address_of
	call probe_read
	EXPECT c, 10, "an invalidated page can still be read: a stale translation"
	mov %esi, %eax
	and $0xfffff000, %eax
	call drop_page
	inc %ebx
	cmp pages, %ebx
	jb 1b
	pop %esi
	pop %ebx
	ret

unmap_at_once:
	SET_LAZY LAZY_MMU
	mov space, %eax
	call clear_pages
	SET_LAZY LAZY_NONE
	FLUSH_TLB
	ret

check_unmapped:
	push %ebx
	xor %ebx, %ebx
1:	mov %ebx, %eax
	call address_of
	call probe_read
	EXPECT c, 11, "an unmapped page can still be read: a stale translation"
	inc %ebx
	cmp pages, %ebx
	jb 1b
	pop %ebx
	ret

	.data
	.balign 4
rounds:	.long 0
pages:	.long 0
round:	.long 0
space:	.long 0

	.include "lib/end.inc"
