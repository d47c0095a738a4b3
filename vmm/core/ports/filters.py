"""Which port reads a filter sees first, and how often it knew the answer."""

from array import array

import cython

from vmm.core.ports.filtervm import FilterMachine
from vmm.core.saved import ARRAY, PARTS, Fields

PORTS = cython.declare(cython.uint, 0x10000)
MOST_FILTERS = cython.declare(cython.uint, 255)


@cython.final
@cython.cclass
class PortFilters:
    """The filters of one machine, by port. `value` is the latest answer."""

    SAVED = Fields(
        {ARRAY: "answered passed", PARTS: "machines"},
        wiring="by_port",
        transient="value",
    )

    def __init__(self):
        self.by_port = bytearray(int(PORTS))
        self.machines = []
        self.answered = array("Q", bytes(8 * int(MOST_FILTERS)))
        self.passed = array("Q", bytes(8 * int(MOST_FILTERS)))
        self.value = 0

    def attach(self, machine, ports):
        """Let a `FilterMachine` see reads of `ports`.

        Raises `ValueError` for a port that another sees already, and beyond 255 filters.
        """
        if len(self.machines) == MOST_FILTERS:
            raise ValueError(f"more than {MOST_FILTERS} filters")
        for port in ports:
            if self.by_port[port]:
                raise ValueError(f"port {port:#x} has a filter already")
        self.machines.append(machine)
        for port in ports:
            self.by_port[port] = len(self.machines)

    def answers(self, port: cython.uint, size: cython.uint, now: cython.ulonglong) -> cython.bint:
        """Does a filter answer this read? Then its answer is in `value`."""
        number: cython.uint = self.by_port[port & (PORTS - 1)]
        if number == 0:
            return False
        machine: FilterMachine = self.machines[number - 1]
        if machine.run(port, size, now):
            self.answered[number - 1] += 1
            self.value = machine.answer
            return True
        self.passed[number - 1] += 1
        return False

    def counts(self, number):
        """(answered, left to the device) of the filter attached as `number`, from 0."""
        return int(self.answered[number]), int(self.passed[number])
