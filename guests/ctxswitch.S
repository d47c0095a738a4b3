# summary: context switches: address spaces, kernel stacks, and ring 3 tasks that take turns
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: rounds=200 (turns of each task), tasks=4 (up to 16).
#
# Every task has its own data at the same virtual address and finds it changed by nobody else each
# time it gets its turn.  A switch is one CR3 write and one kernel stack; no page-table updates to
# speak of, so there is little that batching could save, and the numbers should say so.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"
	.include "lib/user.inc"

	.set MOST_TASKS, 16
	.set SYSTEM_CALL_TURN, 1
	.set SYSTEM_CALL_EXIT, 2		# EDX = 0 if all was well

	# A task, as the kernel knows it.
	.set TASK_SPACE, 0			# directory, 0 once it is over
	.set TASK_STACK, 4			# top of its kernel stack
	.set TASK_ESP, 8			# where it left off in there
	.set TASK_DATA, 12			# the frame of its data
	.set TASK_BYTES, 16

	.text
guest_main:
	PARAMETER rounds, 200, 1000000
	mov %eax, rounds
	PARAMETER tasks, 4, MOST_TASKS
	mov %eax, tasks
	mov %eax, running
	xor %ebx, %ebx
1:	mov %ebx, %eax
	call make_task
	inc %ebx
	cmp tasks, %ebx
	jb 1b

	movl $task_called, system_call_handler
	call run_tasks

	mov $boot_pgd - KERNEL_BASE, %eax
	call switch_to
	call check_tasks
	SAY "ctxswitch: "
	SAY_NUMBER tasks
	SAY " tasks, "
	SAY_NUMBER switches
	SAY " switches, "
	SAY_NUMBER updates
	SAY " updates, ok\n"
	xor %eax, %eax
	ret

task_at:				# EAX = number -> EAX = the task
	shl $4, %eax
	add $task_table, %eax
	ret

# A task that has not run yet looks like one that was interrupted at its first instruction.
make_task:				# EAX = number
	push %ebx
	push %esi
	push %edi
	mov %eax, %esi
	call task_at
	mov %eax, %ebx
	call new_pgd
	mov %eax, TASK_SPACE(%ebx)
	mov $program, %edx
	mov $program_end, %ecx
	call map_program
	call alloc_user_page
	mov %eax, TASK_DATA(%ebx)
	mov %esi, KERNEL_BASE(%eax)		# who it is
	or $P | RW | US | A | D, %eax
	mov %eax, %ecx
	mov TASK_SPACE(%ebx), %eax
	mov $USER_DATA_START, %edx
	call map_page

	call alloc_page
	add $KERNEL_BASE + PAGE_BYTES, %eax
	mov %eax, TASK_STACK(%ebx)
	sub $FRAME_BYTES, %eax
	movl $USER_DATA, FRAME_SS(%eax)
	movl $USER_EFLAGS, FRAME_EFLAGS(%eax)
	movl $USER_CODE, FRAME_CS(%eax)
	movl $USER_TEXT, FRAME_EIP(%eax)
	mov %esi, FRAME_EBX(%eax)
	mov rounds, %edx
	mov %edx, FRAME_ESI(%eax)
	movl $USER_DATA_START, FRAME_EDI(%eax)
	sub $4, %eax
	movl $trap_return, (%eax)
	mov %eax, TASK_ESP(%ebx)
	pop %edi
	pop %esi
	pop %ebx
	ret

run_tasks:				# returns when the last task is over
	push %ebx
	push %esi
	push %edi
	push %ebp
	mov %esp, main_esp
	movl $task_table, current
	jmp resume

tasks_over:
	mov main_esp, %esp
	mov %esp, tss_esp0
	pop %ebp
	pop %edi
	pop %esi
	pop %ebx
	ret

# The system call: on the task's kernel stack, in front of it its frame and the way back to it.
task_called:				# EAX = frame
	mov current, %ebx
	mov %esp, TASK_ESP(%ebx)
	cmpl $SYSTEM_CALL_EXIT, FRAME_EAX(%eax)
	jne next_task
	cmpl $0, FRAME_EDX(%eax)
	EXPECT e, 1, "a task finds its memory changed by another"
	movl $0, TASK_SPACE(%ebx)
	decl running
	jz tasks_over

next_task:				# the next in the table that is not over
	add $TASK_BYTES, %ebx
	mov tasks, %eax
	call task_at
	cmp %eax, %ebx
	jb 1f
	mov $task_table, %ebx
1:	cmpl $0, TASK_SPACE(%ebx)
	je next_task
	mov %ebx, current

resume:
	incl switches
	mov current, %ebx
	mov TASK_STACK(%ebx), %edx
	mov %edx, tss_esp0
	UPDATE_KERNEL_STACK
	mov TASK_SPACE(%ebx), %eax
	call switch_to
	mov TASK_ESP(%ebx), %esp
	ret

# EBX = who it is, ESI = rounds, EDI = its data: who it is, and how many turns it had.
program:
	xor %ecx, %ecx
1:	cmp %ebx, (%edi)
	jne 2f
	cmp %ecx, 4(%edi)
	jne 2f
	inc %ecx
	incl 4(%edi)
	mov $SYSTEM_CALL_TURN, %eax
	int $0x80
	cmp %esi, %ecx
	jb 1b
	xor %edx, %edx
	jmp 3f
2:	mov $1, %edx
3:	mov $SYSTEM_CALL_EXIT, %eax
	int $0x80
program_end:

check_tasks:
	push %ebx
	xor %ebx, %ebx
1:	mov %ebx, %eax
	call task_at
	mov TASK_DATA(%eax), %eax
	cmp %ebx, KERNEL_BASE(%eax)
	EXPECT e, 2, "a task's data is not its own"
	mov KERNEL_BASE + 4(%eax), %eax
	cmp rounds, %eax
	EXPECT e, 3, "a task did not get all its turns"
	inc %ebx
	cmp tasks, %ebx
	jb 1b
	pop %ebx
	ret

	.data
	.balign 4
rounds:	.long 0
tasks:	.long 0
running:
	.long 0
current:
	.long 0
main_esp:
	.long 0
switches:
	.long 0
	.bss
	.balign 4
task_table:
	.skip MOST_TASKS * TASK_BYTES

	.include "lib/end.inc"
