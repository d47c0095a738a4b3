"""Sections in, image out: objects, a linker script, symbols and relocations."""
