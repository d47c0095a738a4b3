"""The examples of the API reference, one for each chapter; a test runs them."""

__all__ = ["EXAMPLES"]

EXAMPLES: dict[str, str] = {
    "Machines": """
from bench.inputs import load_guest, load_rom
from vmm.machine import Machine, MachineDescription

guest, rom = load_guest("pagefault").image, load_rom("batching").image
run = Machine(MachineDescription(guest, rom=rom, cpus=2)).run()
assert run.outcome.ok
""",
    "Results": """
from bench.inputs import load_guest
from vmm.core.event import Reason
from vmm.machine import Machine, MachineDescription

run = Machine(MachineDescription(load_guest("probe").image)).run()
io = run.ledger.by_reason[Reason.IO]
assert io.heavy <= io.count <= run.ledger.total
""",
    "Virtual CPUs": """
import threading
from bench.inputs import load_guest
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription

machine = Machine(MachineDescription(load_guest("ctxswitch").image, cpus=2, threads=True))
threading.Thread(target=machine.stop).start()
assert machine.run().outcome.kind in {OutcomeKind.INTERRUPTED, OutcomeKind.PASSED}
latest = machine.vm.exits.latest(0)  # from any thread, also during the run
""",
    "Registers": """
from bench.inputs import load_guest
from vmm.core.registerids import REGISTER_NAMES as ID
from vmm.machine import Machine, MachineDescription

cpu = Machine(MachineDescription(load_guest("probe").image)).registers[0]
cpu.set({ID["rax"]: 7})
assert cpu.get([ID["rax"]]) == {ID["rax"]: 7}
""",
    "Memory": """
from bench.inputs import load_guest
from vmm.core.slots import MemorySlot
from vmm.layout import pc_slots
from vmm.machine import Machine, MachineDescription

machine = Machine(MachineDescription(load_guest("probe").image, memory=8 << 20))
alias = MemorySlot(0x10000000, 1 << 20, "ram", offset=1 << 20, read_only=True)
machine.set_memory([*pc_slots(8 << 20), alias])
assert machine.run().outcome.ok
""",
    "Interrupts": """
from bench.inputs import load_guest
from vmm.machine import Machine, MachineDescription

machine = Machine(MachineDescription(load_guest("probe").image, apic=True))
machine.irq_line(5, high=True)
machine.msi(0xFEE00000, 0x41)
machine.run()
""",
    "Devices": """
from bench.inputs import load_guest
from vmm.devices.pluggable import Device, Plug
from vmm.machine import Machine, MachineDescription


class Dice(Device):  # a port that reads as a number which is always the same
    ports = (range(0x700, 0x701),)

    def read(self, port, size):
        return 4

    def save(self):
        return {}

    def load(self, state):
        pass


machine = Machine(MachineDescription(load_guest("probe").image, devices=(Plug(Dice),)))
assert machine.run().outcome.ok
""",
    "Port filters": """
from bench.inputs import load_guest
from vmm.filters import load_filter
from vmm.machine import Machine, MachineDescription

filters = (load_filter("pit"),)
run = Machine(MachineDescription(load_guest("calibrate").image, filters=filters)).run()
assert run.outcome.ok
""",
    "Sandbox": """
from vmm.sandbox import EndingKind, Fault, Sandbox

box = Sandbox(lambda box, event: not isinstance(event, Fault), memory=1 << 20)
box.map(0x1000, 4096, writable=False, data=bytes.fromhex("cd80 0f0b"))  # int $0x80; ud2
ending = box.run(0x1000, instructions=1000)
assert ending.kind is EndingKind.UNHANDLED and isinstance(ending.event, Fault)
""",
    "Recording exits": """
from bench.inputs import load_guest
from vmm.machine import Machine, MachineDescription


class Count:
    events = 0

    def take(self, cpu, exits):
        self.events += len(exits)


machine = Machine(MachineDescription(load_guest("probe").image))
count = Count()
machine.record(count)
assert machine.run().ledger.total <= count.events
""",
    "Policies": """
from vmm.core.policy import policy_named

npt = policy_named("npt").adjusted(["+rdtsc"])
assert npt.name.startswith("npt")
""",
    "Errors": """
from vmm.core.errors import BadDescription, VmmError
from vmm.machine import Machine, MachineDescription

try:
    Machine(MachineDescription(b"no guest"))
except VmmError as error:
    assert isinstance(error, BadDescription)
""",
}
"""{chapter: a program}."""
