import pytest

from vmi.doorbell import Feature
from vmm.core.errors import BadDescription
from vmm.core.event import REASON_OF, Event
from vmm.core.policy import INTERCEPTS, POLICIES, policy_named


def test_names() -> None:
    assert [policy.name for policy in POLICIES] == [
        "svm-shadow",
        "svm-unsync",
        "vtx-shadow",
        "npt",
    ]
    for policy in POLICIES:
        assert policy_named(policy.name) is policy
    with pytest.raises(BadDescription, match=r"policy 'kvm': expected one of svm-shadow, "):
        policy_named("kvm")


def test_every_event_has_a_reason() -> None:
    assert set(REASON_OF) == set(Event)


def test_engine_events_are_no_exits() -> None:
    for policy in POLICIES:
        assert not policy.exits & {Event.SOFTWARE_INTERRUPT, Event.EXCEPTION, Event.NX_FETCH}


def test_nested_paging_has_no_exits_for_page_tables() -> None:
    npt = policy_named("npt")
    assert not npt.exits & {Event.PTE_WRITE, Event.SHADOW_FILL, Event.INVLPG, Event.CR_WRITE}
    assert Event.HYPERCALL in npt.exits
    assert npt.features == Feature.ATTACHED


def test_only_vtx_masks_faults() -> None:
    vtx, svm = policy_named("vtx-shadow"), policy_named("svm-shadow")
    assert (vtx.fault_mask, svm.fault_mask) == (True, False)
    assert svm.exits - vtx.exits == {Event.MASKED_CR_READ, Event.WBINVD}


@pytest.mark.parametrize("name", INTERCEPTS)
def test_intercepts_can_be_added_and_removed(name: str) -> None:
    svm = policy_named("svm-shadow")
    more, less = svm.adjusted([f"+{name}"]), svm.adjusted([f"-{name}"])
    assert INTERCEPTS[name] <= more.exits
    assert not INTERCEPTS[name] & less.exits
    assert more.name == f"svm-shadow+{name}"
    assert svm.adjusted([f"-{name}", f"+{name}"]).exits == more.exits


@pytest.mark.parametrize("change", ["rdtsc", "+nothing", "", "+", "*rdtsc"])
def test_bad_changes(change: str) -> None:
    with pytest.raises(BadDescription, match="intercept"):
        POLICIES[0].adjusted([change])


def test_no_change_is_the_same_policy() -> None:
    assert POLICIES[0].adjusted([]) is POLICIES[0]
