# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the ROM is found by: the option ROM header with the VMI fields, $PnP and PCIR.
#
# Three readers, each with its own idea of a ROM.  Firmware wants the 0xAA55 signature, a length,
# a byte sum of 0, and either PCIR (it came out of a PCI BAR) or $PnP (or it is not initialised
# before the boot).  Linux wants "cVmi", the API version, PCIR and a licence, and checks no sum.
# rombuilder fills in the lengths and the two checksums, since only it knows the size.
#
# $PnP, PCIR and the 16-bit code lie in the 96 bytes that the VMI header keeps free for headers:
# so the 16-bit code is within a short jump, and all that firmware looks at is in one place.

	.section .header, "ax"
	.global rom_start
rom_start:
	.word VMI_ROM_SIGNATURE
	.byte 0				# length in 512-byte blocks: rombuilder
	.byte 0xeb			# jmp short, spelt out so that it is 2 bytes in any assembler
	.byte entry16 - rom_start - 5
	.org 0x08
	.long VMI_VROM_SIGNATURE
	.byte VMI_API_MINOR
	.byte VMI_API_MAJOR
	.byte 0				# call slots: an API 13 idea, calls are found by get_reloc now
	.byte 0
	.long 0				# virtual_top: no linear space is taken from the guest
	.word 0
	.word license - rom_start
	.word pcir - rom_start
	.word pnp - rom_start
	.long 0

	.org 0x20
pnp:	.ascii "$PnP"
	.byte 0x10			# structure revision 1.0
	.byte 2				# length in 16-byte paragraphs
	.word 0				# no further header
	.byte 0
	.byte 0				# checksum: rombuilder
	.long 0				# no EISA device id
	.word manufacturer - rom_start
	.word product - rom_start
	.byte 0x05, 0x80, 0x00		# memory controller, other: as the PCI class
	.byte 0x60			# may be shadowed in RAM, may be cached; boots nothing
	.word 0, 0, 0			# no boot connection, disconnect or bootstrap vector
	.word 0
	.word 0				# no static resources

	.org 0x40
pcir:	.ascii "PCIR"
	.word VMI_VENDOR
	.word VMI_DEVICE
	.word 0				# no vital product data
	.word 0x18
	.byte 0				# structure revision: PCI 2.x
	.byte 0x00, 0x80, 0x05		# class code, lowest byte first
	.word 0				# image length: rombuilder
	.byte 0, 1			# code revision 1.0, minor first; Linux prints it
	.byte 0				# code type: PC-AT
	.byte 0x80			# the last image
	.word 0

# Firmware far-calls this once, in real mode, AX = bus/device/function.  The ROM has no device to
# set up and nothing to boot: AX = 0 says so.  Every other register is as it came, and the
# doorbell is left alone: whether a monitor listens is asked when a guest asks for VMI.
	.code16
entry16:
	xor %ax, %ax
	.byte 0xcb			# lret, far: the assemblers differ in how wide they make it
	.code32

	.org VMI_INIT_OFFSET
	jmp vmi_init
	.org VMI_GET_RELOC_OFFSET
	jmp get_reloc
	.org VMI_GET_RELOC_OFFSET + 8

# Linux refuses every licence but "GPL" and "GPL v2".  The sources are GPL-2.0-or-later.
license:
	.asciz "GPL v2"
manufacturer:
	.asciz "vmirom"
product:
.if FLAVOUR_BATCHING
	.asciz "batching"
.else
	.asciz "identity"
.endif
