# SPDX-License-Identifier: GPL-2.0-or-later
#
# All that the ROM ever writes.  The host makes it writable when vmi_init announces it, and finds
# in its first words how long it is; nothing here is written before.  The identity flavour has none.

	.include "queue.inc"

.if FLAVOUR_BATCHING
	.data

# The queue: a header, then the records (vmi/queue.py).  The host reads it before it is writable, so
# the size is here from the start: the linker script knows it.
	.global queue_header, queue_count, queue_downgrade, queue_fault_page, queue_curtain
	.global queue_records
queue_header:
	.long QUEUE_MAGIC
	.long __data_size
	.long QUEUE_CAPACITY
queue_count:
	.long 0
queue_downgrade:
	.long 0
queue_fault_page:
	.long QUEUE_NO_FAULT_PAGE

# Published by the host when it takes the queue.
	.global clock_frequency, clock_wallclock, clock_multiplier, clock_shift, clock_version
	.global clock_updated
clock_frequency:
	.long 0, 0
clock_wallclock:
	.long 0, 0
clock_multiplier:
	.long 0
clock_shift:
	.long 0
clock_version:
	.long 0
clock_updated:
	.long 0
	.long QUEUE_ABLE_CURTAIN | QUEUE_ABLE_HOMES
queue_curtain:
	.long 0

# The local APIC, as far as the host keeps it here.
	.global apic_eoi, apic_registers
apic_eoi:
	.long 0
	.skip QUEUE_APIC_REGISTERS_OFFSET - QUEUE_APIC_EOI_OFFSET - 4
apic_registers:
	.skip QUEUE_RECORDS_OFFSET - QUEUE_APIC_REGISTERS_OFFSET
queue_records:
	.fill QUEUE_CAPACITY, QUEUE_RECORD_SIZE, 0

	.long QUEUE_HOMES
	.long HOME_STRIDE
	.long 0					# whose home this is: nobody's yet

# What the host answered to ATTACH; 0 as long as nobody has.
	.global features
features:
	.long 0

# Not 0: an empty queue is no promise that the shadow is right.
	.global out_of_step
out_of_step:
	.long 1

# The update flags that let an update wait, in the mode the guest is in; for strict visibility.
	.global deferrable
deferrable:
	.long DEFERRABLE_EAGER

# CR3 as last set, 0 if never.
	.global current_cr3
current_cr3:
	.long 0

# Four linear mappings: start, size in bytes, and the record of an entry at the start.  Size 0
# covers nothing.
	.balign 16
	.global slot0_start, slot0_size, slot0_record
slot0_start:
	.long 0
slot0_size:
	.long 0
slot0_record:
	.long 0
	.long 0
	.fill 3 * 4, 4, 0
	.skip HOME_STRIDE - HOME_END

# The homes of further processors.
	.rept QUEUE_HOMES - 1
	.skip QUEUE_FAULT_PAGE_OFFSET
	.long QUEUE_NO_FAULT_PAGE
	.skip HOME_DEFERRABLE - QUEUE_FAULT_PAGE_OFFSET - 4
	.long DEFERRABLE_EAGER
	.skip HOME_STRIDE - HOME_DEFERRABLE - 4
	.endr
.endif
