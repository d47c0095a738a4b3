"""Layouts and numbers against the kernel's headers, as a C compiler reads them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from vmm.engine.kvm import uapi

pytestmark = pytest.mark.no_kvm

LAYOUTS = {
    "kvm_regs": uapi.Regs,
    "kvm_segment": uapi.Segment,
    "kvm_dtable": uapi.Dtable,
    "kvm_sregs": uapi.Sregs,
    "kvm_debugregs": uapi.DebugRegisters,
    "kvm_userspace_memory_region": uapi.MemoryRegion,
    "kvm_interrupt": uapi.Interrupt,
    "kvm_mp_state": uapi.MpState,
    "kvm_enable_cap": uapi.EnableCap,
    "kvm_one_reg": uapi.OneReg,
    "kvm_translation": uapi.Translation,
    "kvm_dirty_log": uapi.DirtyBitmap,
    "kvm_msr_entry": uapi.MsrEntry,
    "kvm_msrs": uapi.MsrList,
    "kvm_cpuid_entry2": uapi.CpuidEntry,
    "kvm_cpuid2": uapi.CpuidList,
    "kvm_signal_mask": uapi.SignalMask,
    "kvm_run": uapi.RunArea,
}
RENAMED = {"exit": "io"}
WITHIN_RUN = {
    "io.direction": uapi.IoExit.direction,
    "io.size": uapi.IoExit.size,
    "io.port": uapi.IoExit.port,
    "io.count": uapi.IoExit.count,
    "io.data_offset": uapi.IoExit.data_offset,
    "mmio.phys_addr": uapi.MmioExit.phys_addr,
    "mmio.data": uapi.MmioExit.data,
    "mmio.len": uapi.MmioExit.len,
    "mmio.is_write": uapi.MmioExit.is_write,
    "internal.suberror": uapi.InternalError.suberror,
    "internal.data": uapi.InternalError.data,
    "fail_entry.cpu": uapi.FailedEntry.cpu,
}


def compile_and_run(folder: Path, lines: list[str]) -> list[int]:
    """Numbers that a C program prints, one a line."""
    source = folder / "layout.c"
    body = "\n".join(f'\tprintf("%llu\\n", (unsigned long long)({line}));' for line in lines)
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\n"
        f"int main(void)\n{{\n{body}\n\treturn 0;\n}}\n"
    )
    subprocess.run(["gcc", "-o", folder / "layout", source], check=True)
    done = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.peer("gcc")
def test_sizes_and_offsets(tmp_path: Path, header: Path) -> None:
    ours, theirs = [], []
    for name, layout in LAYOUTS.items():
        ours.append(ctypes.sizeof(layout))
        theirs.append(f"sizeof(struct {name})")
        for field in layout._fields_:
            part = RENAMED.get(field[0], field[0])
            ours.append(getattr(layout, field[0]).offset)
            theirs.append(f"offsetof(struct {name}, {part})")
    start = uapi.RunArea.exit.offset
    for name, field in WITHIN_RUN.items():
        ours.append(start + field.offset)
        theirs.append(f"offsetof(struct kvm_run, {name})")
    found = compile_and_run(tmp_path, theirs)
    assert dict(zip(theirs, ours, strict=True)) == dict(zip(theirs, found, strict=True))


@pytest.mark.peer("gcc")
def test_numbers(tmp_path: Path, header: Path) -> None:
    numbers = {
        **{f"KVM_{request.name}": request.value for request in uapi.Ioctl},
        **{f"KVM_EXIT_{reason.name}": reason.value for reason in uapi.Exit},
        **{f"KVM_CAP_{capability.name}": capability.value for capability in uapi.Capability},
        **{f"KVM_SYNC_X86_{which.name}": which.value for which in uapi.SyncRegs},
        "KVM_MEM_LOG_DIRTY_PAGES": uapi.SlotFlag.LOG_DIRTY_PAGES.value,
        "KVM_MEM_READONLY": uapi.SlotFlag.READONLY.value,
        "KVM_API_VERSION": uapi.API_VERSION,
    }
    # Newer than the headers of some systems that this is tested on.
    text = header.read_text()
    known = {name: value for name, value in numbers.items() if name in text}
    known |= {name: value for name, value in numbers.items() if name.startswith("KVM_SYNC")}
    assert len(known) > 40
    found = compile_and_run(tmp_path, list(known))
    assert known == dict(zip(known, found, strict=True))


def test_a_layout_of_the_wrong_size_is_not_taken() -> None:
    with pytest.raises(TypeError, match=r"16 bytes and gives ioctl 0x4010ae46, .* 0x4020ae46"):
        uapi._sized(1, 0x46, uapi.OneReg, 0x4020AE46)
