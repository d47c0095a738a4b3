"""Carry out the one instruction that accessed a device's registers in memory.

Like a store to a traced page it exits before it happens, so that the monitor knows
where it stands and what it does. The forms are MOV, MOVZX, MOVSX, TEST and CMP that
load, and all that `StoreEmulator` knows, in 32-bit code.
"""

import cython

from vmm.core.code.fetch import InstructionBytes
from vmm.core.code.stores import StoreEmulator
from vmm.core.cpu.cpustate import CpuState
from vmm.core.mmu.devicememory import DeviceMemory
from vmm.core.saved import Fields

CS = cython.declare(cython.uint, 1)
CODE32 = cython.declare(cython.uint, 0x400000)
EAX = cython.declare(cython.uint, 0)
COMPARE = cython.declare(cython.uint, 7)
TEST = cython.declare(cython.uint, 0)
SIGN_OF_BYTE = cython.declare(cython.uint, 0x80)
SIGN_OF_WORD = cython.declare(cython.uint, 0x8000)
SIGN_EXTENSION = cython.declare(cython.uint, 0xFFFFFF00)
WORD_EXTENSION = cython.declare(cython.uint, 0xFFFF0000)


@cython.final
@cython.cclass
class DeviceAccess:
    """Emulates accesses whose operand lies at a known guest-physical address."""

    SAVED = Fields(
        wiring="cpu code stores devices",
    )

    def __init__(
        self,
        cpu: CpuState,
        code: InstructionBytes,
        stores: StoreEmulator,
        devices: DeviceMemory,
    ):
        self.cpu = cpu
        self.code = code
        self.stores = stores
        self.devices = devices

    def load(self, eip: cython.uint, physical: cython.uint) -> cython.bint:
        """Carry out the load at `eip`; false, and nothing done, for an unknown form."""
        self.stores.device = self.devices
        try:
            return self.load_form(eip, physical)
        finally:
            self.stores.device = None

    def store(self, eip: cython.uint, physical: cython.uint) -> cython.bint:
        """The same for an instruction that stores, or loads and then stores."""
        self.stores.device = self.devices
        try:
            return self.stores.emulate(eip, physical)
        finally:
            self.stores.device = None

    def load_form(self, eip: cython.uint, physical: cython.uint) -> cython.bint:
        """Decode, access, move EIP on."""
        code: InstructionBytes = self.code
        stores: StoreEmulator = self.stores
        if not self.cpu.attributes(CS) & CODE32:
            return False
        code.load(eip)
        stores.physical = physical
        stores.size = 4
        at: cython.uint = 0
        op: cython.uint = code.byte(0)
        while at < 8 and op in (0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x66):
            if op == 0x66:
                stores.size = 2
            at += 1
            op = code.byte(at)
        if op == 0x0F:
            return self.extend(eip, at + 1)
        if op in (0x8A, 0xA0, 0x84, 0x38, 0x3A, 0x80, 0xF6):
            stores.size = 1
        if (physical & 0xFFF) + stores.size > 4096:
            return False
        modrm: cython.uint = at + 1
        number: cython.uint = (code.byte(modrm) >> 3) & 7
        length: cython.uint
        value: cython.uint
        if op in (0xA0, 0xA1):
            if stores.is_rest(code.dword(modrm)):
                return False
            stores.set_register(EAX, stores.load())
            return stores.finish(eip + at + 5) == 0
        if stores.is_rest(code.effective_address(modrm)):
            return False
        length = at + 1 + code.operand_length(modrm)
        if op in (0x8A, 0x8B):
            stores.set_register(number, stores.load())
        elif op in (0x84, 0x85):
            stores.set_result_flags(stores.load() & stores.register_value(number), 0, 0, 0)
        elif op in (0x38, 0x39):
            stores.set_difference_flags(stores.load(), stores.register_value(number))
        elif op in (0x3A, 0x3B):
            stores.set_difference_flags(stores.register_value(number), stores.load())
        elif op in (0x80, 0x81, 0x83) and number == COMPARE:
            if op == 0x81:
                value = code.dword(length)
                length += stores.size
            else:
                value = code.byte(length)
                if op == 0x83 and value & SIGN_OF_BYTE:
                    value |= SIGN_EXTENSION
                length += 1
            stores.set_difference_flags(stores.load(), value & stores.mask())
        elif op in (0xF6, 0xF7) and number == TEST:
            value = code.dword(length) & stores.mask()
            length += stores.size
            stores.set_result_flags(stores.load() & value, 0, 0, 0)
        else:
            return False
        return stores.finish(eip + length) == 0

    def extend(self, eip: cython.uint, at: cython.uint) -> cython.bint:
        """MOVZX and MOVSX."""
        code: InstructionBytes = self.code
        stores: StoreEmulator = self.stores
        op: cython.uint = code.byte(at)
        if op not in (0xB6, 0xB7, 0xBE, 0xBF):
            return False
        target: cython.uint = stores.size
        stores.size = 2 if op & 1 else 1
        if (stores.physical & 0xFFF) + stores.size > 4096:
            return False
        if stores.is_rest(code.effective_address(at + 1)):
            return False
        value: cython.uint = stores.load()
        if op == 0xBE and value & SIGN_OF_BYTE:
            value |= SIGN_EXTENSION
        elif op == 0xBF and value & SIGN_OF_WORD:
            value |= WORD_EXTENSION
        stores.size = target
        stores.set_register((code.byte(at + 1) >> 3) & 7, value)
        return stores.finish(eip + at + 1 + code.operand_length(at + 1)) == 0
