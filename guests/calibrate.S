# summary: timer polling: calibrate the time-stamp counter against the PIT, as kernels do
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Parameters: rounds=4, steps=40.
#
# Linux reads channel 2 of the PIT over and over, low byte and high byte, until the high byte has
# changed so many times (quick_pit_calibrate), or port 0x61 until the channel's output rises
# (pit_calibrate_tsc).  This does both.  Nearly all that it costs is port reads, of which no ROM
# saves any: Linux never calls it for them.

	.include "lib/boot.inc"
	.include "lib/console.inc"
	.include "lib/cmdline.inc"
	.include "lib/vmi.inc"
	.include "lib/traps.inc"
	.include "lib/pages.inc"
	.include "lib/faults.inc"

	.set PIT_COUNTER, 0x42
	.set PIT_CONTROL, 0x43
	.set CONTROL_PORT_B, 0x61
	.set GATE, 0x01
	.set SPEAKER, 0x02
	.set OUTPUT, 0x20
	.set COUNT_DOWN, 0xb0			# channel 2, two bytes, mode 0, binary

	.set MOST_STEPS, 200
	# 256 pulses of 1193182 Hz are 214552 ns; the counter counts nanoseconds.
	.set STEP_LEAST, 212000
	.set STEP_MOST, 217000
	.set SHORT_COUNT, 2000			# pulses: 1676192 ns
	.set SHORT_LEAST, 1676000
	.set SHORT_MOST, 1680000

	.text
guest_main:
	PARAMETER rounds, 4, 1000
	mov %eax, rounds
	PARAMETER steps, 40, MOST_STEPS
	mov %eax, steps
	in $CONTROL_PORT_B, %al
	and $~SPEAKER & 0xff, %al
	or $GATE, %al
	out %al, $CONTROL_PORT_B

1:	call count_steps
	call wait_for_output
	incl round
	mov round, %eax
	cmp rounds, %eax
	jb 1b

	SAY "calibrate: "
	SAY_NUMBER rounds
	SAY " rounds of "
	SAY_NUMBER steps
	SAY " steps, "
	SAY_NUMBER step_time
	SAY " ns a step, "
	SAY_NUMBER polls
	SAY " polls, ok\n"
	xor %eax, %eax
	ret

start_count:				# AX = count
	push %eax
	mov $COUNT_DOWN, %al
	out %al, $PIT_CONTROL
	pop %eax
	out %al, $PIT_COUNTER
	mov %ah, %al
	out %al, $PIT_COUNTER
	ret

read_high:				# -> AL = the counter's high byte
	in $PIT_COUNTER, %al
	in $PIT_COUNTER, %al
	addl $2, polls
	ret

# So many changes of the high byte, each to the value one below, and what one takes.
count_steps:
	push %ebx
	push %esi
	mov $0xffff, %eax
	call start_count
	call read_high
	mov %al, %bl
	mov steps, %esi
1:	call read_high				# begin where the byte has just changed
	cmp %al, %bl
	je 1b
	mov %al, %bl
	rdtsc
	mov %eax, started
2:	call read_high
	cmp %al, %bl
	je 2b
	dec %bl
	cmp %al, %bl
	EXPECT e, 1, "the PIT's high byte skipped a value"
	dec %esi
	jnz 2b
	rdtsc
	sub started, %eax
	xor %edx, %edx
	divl steps
	mov %eax, step_time
	cmp $STEP_LEAST, %eax
	EXPECT ae, 2, "the PIT is too fast"
	cmp $STEP_MOST, %eax
	EXPECT be, 3, "the PIT is too slow"
	pop %esi
	pop %ebx
	ret

# How long until the output rises.
wait_for_output:
	mov $SHORT_COUNT, %eax
	call start_count
	rdtsc
	mov %eax, started
1:	in $CONTROL_PORT_B, %al
	incl polls
	test $OUTPUT, %al
	jz 1b
	rdtsc
	sub started, %eax
	cmp $SHORT_LEAST, %eax
	EXPECT ae, 4, "the PIT's output rose too early"
	cmp $SHORT_MOST, %eax
	EXPECT be, 5, "the PIT's output rose too late"
	ret

	.bss
rounds:		.skip 4
round:		.skip 4
steps:		.skip 4
polls:		.skip 4
started:	.skip 4
step_time:	.skip 4

	.include "lib/end.inc"
