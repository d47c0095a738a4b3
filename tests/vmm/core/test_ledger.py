from vmm.core.event import Event, Reason
from vmm.core.ledger import Ledger, ReasonCount
from vmm.core.policy import policy_named

TOTALS = {
    Event.PTE_WRITE: (10, 0),
    Event.IO: (7, 5),
    Event.MASKED_CR_READ: (3, 0),
    Event.CR_READ: (2, 0),
    Event.SOFTWARE_INTERRUPT: (9, 0),
    Event.RDTSC: (4, 0),
}
PLACES = [
    (Event.PTE_WRITE, 0x5000, 0x100, 10),
    (Event.SOFTWARE_INTERRUPT, 0, 0x104, 9),
    (Event.IO, 0x1040402, 0x108, 5),
    (Event.IO, 0x40560, 0x10C, 2),
    (Event.HYPERCALL, 1, 0x110, 2),
    (Event.HYPERCALL, 77, 0x110, 2),
    (Event.CR_READ, 3, 0x120, 2),
]


def test_events_become_exits_or_engine_events() -> None:
    ledger = Ledger.from_counts(policy_named("svm-shadow"), TOTALS, PLACES, 3)
    assert ledger.by_reason == {
        Reason.PTE_WRITE: ReasonCount(10, 0),
        Reason.CR_READ: ReasonCount(5, 0),
        Reason.IO: ReasonCount(2, 5),
    }
    assert (ledger.total, ledger.light, ledger.heavy, ledger.elsewhere) == (22, 17, 5, 3)
    assert ledger.engine_events == {"software_interrupt": 9, "rdtsc": 4}


def test_the_policy_decides() -> None:
    npt = Ledger.from_counts(policy_named("npt"), TOTALS, PLACES, 0)
    assert set(npt.by_reason) == {Reason.IO}
    assert npt.engine_events["pte_write"] == 10
    vtx = Ledger.from_counts(policy_named("vtx-shadow"), TOTALS, PLACES, 0)
    assert vtx.by_reason[Reason.CR_READ].count == 2


def test_places_say_what_was_accessed() -> None:
    ledger = Ledger.from_counts(policy_named("svm-shadow"), TOTALS, PLACES, 0)
    assert [(place.detail, place.eip, place.count) for place in ledger.places] == [
        ("table 0x00005000", 0x100, 10),
        ("out port 0x0402 size 4", 0x108, 5),
        ("in port 0x0560 size 4", 0x10C, 2),
        ("FLUSH", 0x110, 2),
        ("function 77", 0x110, 2),
        ("CR3", 0x120, 2),
    ]
