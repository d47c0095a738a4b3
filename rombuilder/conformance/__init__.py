"""Does a VMI ROM do what the native instructions do?

Each call that get_reloc offers is run, on random machine states, beside the native
instruction that it stands for, and everything either of them leaves behind is
compared. In the order of reading: `native` (what a call stands for), `states` (what
it is called with), `machine` and `privileged` (where both are run), `judge`
(what must be equal), `relocation` (vmi_init and get_reloc), `checker` (all of it for
one ROM), `worker` and `check` (at arm's length, for whoever asks).
"""
