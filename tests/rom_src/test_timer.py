"""The timer calls: what they read, what they hand over, and when they are there at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unicorn import x86_const as x86

from vmi.clock import cycle_scale
from vmi.doorbell import Doorbell, Feature
from vmi.queue import HeaderField
from vmi.relocation import RelocationKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

TIMED = Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP | Feature.CLOCK | Feature.ALONE
CALLS = range(66, 72)
RDTSC = b"\x0f\x31"
EPOCH = 1_199_145_600_000_000_000


def pair(made: Machine) -> int:
    return made.register("eax") | made.register("edx") << 32


def publish(made: Machine, frequency: int = 1_000_000_000, wallclock: int = EPOCH) -> None:
    queue = made.attached()
    multiplier, shift = cycle_scale(frequency)
    for offset, value in (
        (HeaderField.FREQUENCY, frequency & 0xFFFFFFFF),
        (HeaderField.FREQUENCY + 4, frequency >> 32),
        (HeaderField.WALLCLOCK, wallclock & 0xFFFFFFFF),
        (HeaderField.WALLCLOCK + 4, wallclock >> 32),
        (HeaderField.MULTIPLIER, multiplier),
        (HeaderField.SHIFT, shift),
    ):
        queue.set_word(offset, value)


def at_counter(made: Machine, name: str, cycles: int, eax: int = 0) -> int:
    """EDX:EAX of a call whose RDTSC reads `cycles`; the registers that calls keep are kept."""
    made.prepare(made.address_of(name), eax=eax)
    kept = {register: made.register(register) for register in ("ebx", "esi", "edi", "ebp")}
    esp = made.esp
    while made.eip != 0xC0A00000:
        if bytes(made.uc.mem_read(made.eip, 2)) == RDTSC:
            made.uc.reg_write(x86.UC_X86_REG_EAX, cycles & 0xFFFFFFFF)
            made.uc.reg_write(x86.UC_X86_REG_EDX, cycles >> 32)
            made.uc.reg_write(x86.UC_X86_REG_EIP, made.eip + 2)
        else:
            made.step()
    assert made.esp == esp + 4
    assert {register: made.register(register) for register in kept} == kept
    return pair(made)


@pytest.mark.parametrize(
    ("features", "there"),
    [(None, False), (Feature(0), False), (Feature.ATTACHED, False), (TIMED, True)],
)
@pytest.mark.parametrize("calls", ["needed", "all"])
def test_all_or_nothing(
    machine: MachineFactory, features: Feature | None, calls: str, *, there: bool
) -> None:
    made = machine(features=features, calls=calls)
    expected = RelocationKind.CALL_REL if there else RelocationKind.NONE
    assert {made.reloc(number).kind for number in CALLS} == {expected}


def test_a_rom_built_without_them_does_not_offer_them(machine: MachineFactory) -> None:
    made = machine(features=TIMED, TIMER_CALLS=0)
    assert {made.reloc(number).kind for number in CALLS} == {RelocationKind.NONE}
    assert "timer_SetAlarm" not in made.rom.symbols


@pytest.mark.parametrize("frequency", [1_000_000_000, 0x2_3456_789A])
def test_frequency_is_the_published_one(machine: MachineFactory, frequency: int) -> None:
    made = machine(features=TIMED)
    publish(made, frequency)
    made.call("GetCycleFrequency")
    assert pair(made) == frequency


@pytest.mark.parametrize("cycles", [0, 0xFFFFFFFF, 0x1_0000_0000, (1 << 64) - 1])
def test_counters(machine: MachineFactory, cycles: int) -> None:
    made = machine(features=TIMED)
    assert at_counter(made, "GetCycleCounter", cycles, eax=0) == cycles
    assert at_counter(made, "GetCycleCounter", cycles, eax=1) == cycles
    assert at_counter(made, "GetCycleCounter", cycles, eax=2) == 0


@pytest.mark.parametrize("frequency", [1_000_000_000, 999_999_999, 33_333_333, 3_000_000_000])
@pytest.mark.parametrize("cycles", [0, 1, 0xFFFFFFFF, 0x1_0000_0000, 0x123_4567_89AB_CDEF])
def test_wall_clock(machine: MachineFactory, frequency: int, cycles: int) -> None:
    made = machine(features=TIMED)
    publish(made, frequency)
    multiplier, shift = cycle_scale(frequency)
    shifted = (cycles << shift) & ((1 << 64) - 1)
    expected = EPOCH + (shifted * multiplier >> 32)
    assert at_counter(made, "GetWallclockTime", cycles) == expected & ((1 << 64) - 1)


def test_wall_clock_that_is_set_while_it_is_read(machine: MachineFactory) -> None:
    """Whatever the moment, the answer is the old time or the new one, never half of each."""
    made = machine(features=TIMED)
    publish(made)
    version = HeaderField.WALLCLOCK_VERSION
    later = EPOCH + (7 << 32)
    answers = set()
    for stop in range(60):
        publish(made)
        made.prepare(made.address_of("GetWallclockTime"))
        steps = 0
        while made.eip != 0xC0A00000:
            if steps == stop:
                publish(made, wallclock=later)
                made.attached().set_word(version, made.attached().word(version) + 1)
            if bytes(made.uc.mem_read(made.eip, 2)) == RDTSC:
                for register in (x86.UC_X86_REG_EAX, x86.UC_X86_REG_EDX):
                    made.uc.reg_write(register, 0)
                made.uc.reg_write(x86.UC_X86_REG_EIP, made.eip + 2)
            else:
                made.step()
            steps += 1
        answers.add(pair(made))
    assert answers == {EPOCH, later}


def test_wallclock_updated_is_told_once(machine: MachineFactory) -> None:
    made = machine(features=TIMED)
    assert made.call("WallclockUpdated") == 0
    made.attached().set_word(HeaderField.WALLCLOCK_UPDATED, 1)
    assert made.call("WallclockUpdated") == 1
    assert made.call("WallclockUpdated") == 0


def test_reading_never_rings(machine: MachineFactory) -> None:
    made = machine(features=TIMED)
    made.rings.clear()
    for name in ("GetCycleFrequency", "GetCycleCounter", "GetWallclockTime", "WallclockUpdated"):
        made.call(name)
    assert made.rings == []


def test_set_alarm_hands_over_five_words_in_one_ring(machine: MachineFactory) -> None:
    made = machine(features=TIMED)
    made.rings.clear()
    made.call("SetAlarm", (0x44444444, 0x55555555), eax=0x100, edx=0x22222222, ecx=0x33333333)
    (ring,) = made.rings
    assert ring.function is Doorbell.SET_ALARM
    words = [made.read(ring.argument + 4 * number) for number in range(5)]
    assert words == [0x100, 0x22222222, 0x33333333, 0x44444444, 0x55555555]


def test_an_interrupts_alarm_has_words_of_its_own(machine: MachineFactory) -> None:
    """A handler that sets an alarm between any two instructions spoils nothing."""
    made = machine(features=TIMED)
    for stop in range(9):
        made.rings.clear()
        made.prepare(made.address_of("SetAlarm"), (4, 5), eax=1, edx=2, ecx=3)
        for _ in range(stop):
            made.step()
        context = made.uc.context_save()
        esp = made.esp - 32
        for word, at in ((0xC0A00000, 0), (0x40, 4), (0x50, 8)):
            made.write(esp + at, word)
        made.prepare_nested(esp, made.address_of("SetAlarm"), eax=0x10, edx=0x20, ecx=0x30)
        made.finish()
        made.uc.context_restore(context)
        read = []
        serve = made._serve

        def listen(ring, read=read, serve=serve):
            read.append([made.read(ring.argument + 4 * number) for number in range(5)])
            return serve(ring)

        made._serve = listen  # type: ignore[method-assign]
        made.finish()
        made._serve = serve  # type: ignore[method-assign]
        assert all(words == [1, 2, 3, 4, 5] for words in read)
        assert len(made.rings) == 2


def test_cancel_answers_what_the_host_says(machine: MachineFactory) -> None:
    made = machine(features=TIMED)
    made.rings.clear()
    assert made.call("CancelAlarm", eax=0x101) == 1
    assert made.rings[0].function is Doorbell.CANCEL_ALARM
    assert made.rings[0].argument == 0x101
    made.refuse.add(Doorbell.CANCEL_ALARM)
    assert made.call("CancelAlarm", eax=0x101) == 0
