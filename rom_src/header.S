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

	.include "version.inc"

	.section .header, "ax"
	.global rom_start
	.type rom_start, @object
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
	.type pnp, @object
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
	.type pcir, @object
pcir:	.ascii "PCIR"
	.word VMI_VENDOR
	.word VMI_DEVICE
	.word 0				# no vital product data
	.word 0x18
	.byte 0				# structure revision: PCI 2.x
	.byte 0x00, 0x80, 0x05		# class code, lowest byte first
	.word 0				# image length: rombuilder
	.byte ROM_MINOR, ROM_MAJOR	# code revision; Linux prints it
	.byte 0				# code type: PC-AT
	.byte 0x80			# the last image
	.word 0

# Firmware far-calls the entry at offset 3, which comes here.  The code lies elsewhere (post.S); the
# jump is spelt out because the assemblers differ in how they make one to another file.
	.code16
	.type entry16, @function
entry16:
	.byte 0xe9			# jmp, 16-bit distance
	.word post - . - 2
	.size entry16, . - entry16
	.code32

	.org VMI_INIT_OFFSET
	.type vmi_init_entry, @function
vmi_init_entry:
	jmp vmi_init
	.org VMI_GET_RELOC_OFFSET
	.type get_reloc_entry, @function
get_reloc_entry:
	jmp get_reloc
	.org VMI_GET_RELOC_OFFSET + 8

# Linux refuses every licence but "GPL" and "GPL v2".  The sources are GPL-2.0-or-later.
	.type license, @object
license:
	.asciz "GPL v2"
	.type manufacturer, @object
manufacturer:
	.asciz "vmirom"
	.type product, @object
product:
.if FLAVOUR_BATCHING
	.asciz "batching"
.else
	.asciz "identity"
.endif
