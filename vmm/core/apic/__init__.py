"""Parts of the local APIC: its vectors, local vector table, timer and interrupts."""
