"""The second engine: the kernel's own hypervisor, /dev/kvm.

`uapi` is the kernel's interface as data, `device` the file descriptors behind it;
`slots`, `registers` and `kick` are one idea each; `processor` serves a guest's exits into
the same ledger as the other engine, `runloop` runs it, `probe` finds out what this host
can do.
"""
