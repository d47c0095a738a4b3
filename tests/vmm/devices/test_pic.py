import pytest

from vmm.core.bus import InterruptController
from vmm.devices.pic import Pic, PicPair

MASTER, MASTER_DATA, SLAVE, SLAVE_DATA = 0x20, 0x21, 0xA0, 0xA1
EOI = 0x20


def initialised(*, icw4: int = 0x01) -> PicPair:
    """Both chips set up as Linux does, with everything unmasked."""
    pics = PicPair()
    for command, data, base, wiring in (
        (MASTER, MASTER_DATA, 0x30, 0x04),
        (SLAVE, SLAVE_DATA, 0x38, 0x02),
    ):
        pics.write(command, 1, 0x11)
        pics.write(data, 1, base)
        pics.write(data, 1, wiring)
        pics.write(data, 1, icw4)
    return pics


def read_irr(pics: PicPair, command: int = MASTER) -> int:
    pics.write(command, 1, 0x0A)
    return pics.read(command, 1)


def read_isr(pics: PicPair, command: int = MASTER) -> int:
    pics.write(command, 1, 0x0B)
    return pics.read(command, 1)


def raise_irq(pics: PicPair, irq: int) -> None:
    pics.line(irq).level = True


def lower_irq(pics: PicPair, irq: int) -> None:
    pics.line(irq).level = False


def test_is_an_interrupt_controller() -> None:
    controller: InterruptController = PicPair()
    assert not controller.pending


@pytest.mark.parametrize("irq", [-1, 2, 16])
def test_there_is_no_such_line(irq: int) -> None:
    with pytest.raises(ValueError, match=f"IRQ {irq}: expected 0-15 without 2"):
        PicPair().line(irq)


def test_starts_as_firmware_leaves_it() -> None:
    pics = PicPair()
    assert pics.read(MASTER_DATA, 1) == pics.read(SLAVE_DATA, 1) == 0xFF
    raise_irq(pics, 0)
    assert not pics.pending
    pics.write(MASTER_DATA, 1, 0xFE)
    assert pics.pending
    assert pics.acknowledge() == 0x08


@pytest.mark.parametrize("irq", [n for n in range(16) if n != 2])
def test_vectors(irq: int) -> None:
    pics = initialised()
    raise_irq(pics, irq)
    assert pics.line(irq).level
    assert pics.pending
    assert pics.acknowledge() == 0x30 + irq
    assert not pics.pending


def test_vector_base_has_five_bits() -> None:
    pics = initialised()
    for value in (0x11, 0x47, 0x04, 0x01):
        pics.write(MASTER if value == 0x11 else MASTER_DATA, 1, value)
    raise_irq(pics, 1)
    assert pics.acknowledge() == 0x41


def test_without_icw4_and_icw3() -> None:
    pics = initialised(icw4=0x03)
    pics.write(MASTER, 1, 0x12)  # single, no ICW4
    pics.write(MASTER_DATA, 1, 0x50)
    pics.write(MASTER_DATA, 1, 0xFB)  # this is a mask already
    assert pics.read(MASTER_DATA, 1) == 0xFB
    pics.write(MASTER_DATA, 1, 0)
    raise_irq(pics, 3)
    assert pics.acknowledge() == 0x53
    assert read_isr(pics) == 0x08, "automatic end of interrupt is off without ICW4"


def test_initialisation_clears_mask_edges_and_service() -> None:
    pics = initialised()
    raise_irq(pics, 4)
    raise_irq(pics, 1)
    pics.acknowledge()
    pics.write(MASTER_DATA, 1, 0xAA)
    pics.write(MASTER, 1, 0x11)
    assert pics.read(MASTER_DATA, 1) == 0
    assert read_isr(pics) == read_irr(pics) == 0
    assert not pics.pending, "an input that is high needs a new edge"


def test_priorities_and_nesting() -> None:
    pics = initialised()
    for irq in (6, 3):
        raise_irq(pics, irq)
    assert read_irr(pics) == 0x48
    assert pics.acknowledge() == 0x33
    assert read_irr(pics) == 0x40
    assert read_isr(pics) == 0x08
    assert not pics.pending, "6 waits for 3"
    raise_irq(pics, 1)
    assert pics.pending, "1 does not"
    assert pics.acknowledge() == 0x31
    assert read_isr(pics) == 0x0A
    pics.write(MASTER, 1, EOI)
    assert read_isr(pics) == 0x08, "a plain EOI ends the most important one"
    assert not pics.pending
    pics.write(MASTER, 1, EOI)
    assert pics.acknowledge() == 0x36


def test_slave_ranks_between_1_and_3() -> None:
    pics = initialised()
    for irq in (3, 12, 8):
        raise_irq(pics, irq)
    assert pics.acknowledge() == 0x38
    assert read_isr(pics) == 0x04
    assert read_isr(pics, SLAVE) == 0x01
    pics.write(SLAVE, 1, EOI)
    assert not pics.pending, "the master still serves its input 2"
    pics.write(MASTER, 1, EOI)
    assert pics.acknowledge() == 0x3C
    raise_irq(pics, 1)
    assert pics.acknowledge() == 0x31


def test_a_more_important_slave_input_waits_unless_specially_nested() -> None:
    plain, special = initialised(), initialised(icw4=0x11)
    for pics in (plain, special):
        raise_irq(pics, 12)
        assert pics.acknowledge() == 0x3C
        raise_irq(pics, 9)
    assert not plain.pending
    assert special.pending
    assert special.acknowledge() == 0x39


def test_specific_eoi() -> None:
    pics = initialised()
    for irq in (5, 1):
        raise_irq(pics, irq)
        pics.acknowledge()
    pics.write(MASTER, 1, 0x60 | 5)
    assert read_isr(pics) == 0x02


def test_eoi_without_service_does_nothing() -> None:
    pics = initialised()
    pics.write(MASTER, 1, EOI)
    pics.write(MASTER, 1, 0x60 | 3)
    assert read_isr(pics) == 0


def test_automatic_eoi() -> None:
    pics = initialised(icw4=0x03)
    raise_irq(pics, 5)
    raise_irq(pics, 9)
    raise_irq(pics, 14)
    assert [pics.acknowledge() for _ in range(3)] == [0x39, 0x3E, 0x35]
    assert read_isr(pics) == read_isr(pics, SLAVE) == 0
    assert not pics.pending


def test_mask_holds_back_but_remembers() -> None:
    pics = initialised()
    pics.write(MASTER_DATA, 1, 0x10)
    raise_irq(pics, 4)
    assert not pics.pending
    assert read_irr(pics) == 0x10
    pics.write(MASTER_DATA, 1, 0)
    assert pics.acknowledge() == 0x34


def test_masking_the_cascade_holds_back_the_slave() -> None:
    pics = initialised()
    pics.write(MASTER_DATA, 1, 0x04)
    raise_irq(pics, 8)
    assert not pics.pending
    pics.write(MASTER_DATA, 1, 0)
    assert pics.acknowledge() == 0x38


def test_an_edge_counts_once() -> None:
    pics = initialised()
    raise_irq(pics, 4)
    pics.acknowledge()
    pics.write(MASTER, 1, EOI)
    assert not pics.pending
    raise_irq(pics, 4)
    assert not pics.pending
    lower_irq(pics, 4)
    raise_irq(pics, 4)
    assert pics.pending


def test_a_level_counts_as_long_as_it_lasts() -> None:
    pics = initialised()
    pics.write(0x4D0, 1, 0x20)
    raise_irq(pics, 5)
    assert pics.acknowledge() == 0x35
    assert read_irr(pics) == 0x20
    pics.write(MASTER, 1, EOI)
    assert pics.pending
    lower_irq(pics, 5)
    assert not pics.pending


def test_elcr_keeps_the_inputs_that_are_always_edges() -> None:
    pics = initialised()
    pics.write(0x4D0, 2, 0xFFFF)
    assert pics.read(0x4D0, 2) == 0xDEF8


def test_edge_that_falls_before_acknowledge_is_spurious() -> None:
    pics = initialised()
    raise_irq(pics, 3)
    assert pics.pending
    lower_irq(pics, 3)
    assert not pics.pending
    assert pics.acknowledge() == 0x37
    assert read_isr(pics) == 0, "a false alarm is not in service"


def test_spurious_of_the_slave() -> None:
    pics = initialised()
    raise_irq(pics, 10)
    pics._slave.set_wire(2, level=False)  # gone between the master's and the slave's INTA
    assert pics.acknowledge() == 0x3F
    assert read_isr(pics) == 0x04, "the master does not know"
    assert read_isr(pics, SLAVE) == 0


def test_rotation_on_eoi() -> None:
    pics = initialised()
    raise_irq(pics, 4)
    pics.acknowledge()
    pics.write(MASTER, 1, 0xA0)  # rotate on non-specific EOI: 4 becomes the least important
    for irq in (0, 4, 5):
        lower_irq(pics, irq)
        raise_irq(pics, irq)
    order = []
    while pics.pending:
        order.append(pics.acknowledge() - 0x30)
        pics.write(MASTER, 1, EOI)
    assert order == [5, 0, 4]


def test_rotation_on_specific_eoi() -> None:
    pics = initialised()
    raise_irq(pics, 0)
    pics.acknowledge()
    pics.write(MASTER, 1, 0xE0)
    lower_irq(pics, 0)
    raise_irq(pics, 0)
    raise_irq(pics, 7)
    assert pics.acknowledge() == 0x37


def test_set_priority_command() -> None:
    pics = initialised()
    pics.write(MASTER, 1, 0xC0 | 5)  # 5 is least, so 6 is most important
    for irq in (0, 5, 6):
        raise_irq(pics, irq)
    assert pics.acknowledge() == 0x36
    pics.write(MASTER, 1, EOI)
    assert pics.acknowledge() == 0x30


def test_rotation_on_automatic_eoi() -> None:
    pics = initialised(icw4=0x03)
    pics.write(MASTER, 1, 0x80)
    raise_irq(pics, 1)
    assert pics.acknowledge() == 0x31
    lower_irq(pics, 1)
    raise_irq(pics, 1)
    raise_irq(pics, 6)
    assert pics.acknowledge() == 0x36
    pics.write(MASTER, 1, 0x00)
    raise_irq(pics, 4)
    assert pics.acknowledge() == 0x31


def test_special_mask_mode() -> None:
    pics = initialised()
    raise_irq(pics, 3)
    pics.acknowledge()
    pics.write(MASTER_DATA, 1, 0x08)
    raise_irq(pics, 6)
    assert not pics.pending
    pics.write(MASTER, 1, 0x68)
    assert pics.pending, "a masked level in service holds nobody back"
    assert pics.acknowledge() == 0x36
    pics.write(MASTER, 1, EOI)
    assert read_isr(pics) == 0x08, "a plain EOI does not end a masked level"
    pics.write(MASTER, 1, 0x48)
    lower_irq(pics, 6)
    raise_irq(pics, 6)
    assert not pics.pending


def test_poll() -> None:
    pics = initialised()
    pics.write(MASTER, 1, 0x0C)
    assert pics.read(MASTER, 1) == 0
    raise_irq(pics, 5)
    pics.write(MASTER, 1, 0x0C)
    assert pics.read(MASTER, 1) == 0x85
    assert read_isr(pics) == 0x20
    assert not pics.pending


def test_hears_of_each_change_once() -> None:
    changes: list[bool] = []
    pics = PicPair(changes.append)
    pics.write(MASTER_DATA, 1, 0)
    raise_irq(pics, 1)
    raise_irq(pics, 3)
    assert changes == [True]
    pics.acknowledge()
    assert changes == [True, False]
    pics.write(MASTER, 1, EOI)
    assert changes == [True, False, True]


def test_one_chip_alone() -> None:
    chip = Pic(0x20)
    chip.write_register(1, 0)
    chip.set_wire(6, level=True)
    assert chip.wire(6)
    assert chip.output
    assert chip.requests == 0x40
    assert chip.acknowledge() == 6
    assert chip.acknowledge() is None
