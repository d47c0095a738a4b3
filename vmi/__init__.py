"""The VMI ROM interface (API 3.0) as data and codecs.

Everything else in the project - the ROM and guest assembly, the linker checks,
the monitor and the reports - takes its numbers from here, so that a call number
or a queue offset is written down exactly once.
"""
