from array import array

from hypothesis import given
from hypothesis import strategies as st

from vmm.core.mmu.links import Links

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 9)), max_size=200)


@given(STEPS)
def test_lists_are_multisets(steps: list[tuple[bool, int, int]]) -> None:
    links = Links(4096)
    heads = array("I", bytes(16))
    model: list[list[int]] = [[], [], [], []]
    for add, head, location in steps:
        if add:
            links.add(heads, head, location)
            model[head].append(location)
        else:
            assert links.remove(heads, head, location) == (location in model[head])
            if location in model[head]:
                model[head].remove(location)
    for head in range(4):
        for location in list(model[head]):
            assert links.remove(heads, head, location)
        assert heads[head] == 0


def test_nodes_are_used_again() -> None:
    links = Links(2000)
    heads = array("I", bytes(4))
    for i in range(100_000):
        links.add(heads, 0, i)
        links.remove(heads, 0, i)
    assert not links.nearly_full()


def test_nearly_full_leaves_room_for_a_fill() -> None:
    links = Links(3000)
    heads = array("I", bytes(4))
    added = 0
    while not links.nearly_full():
        links.add(heads, 0, 1)
        added += 1
    for _ in range(1000):
        links.add(heads, 0, 1)
    assert added > 1900
    links.clear()
    assert not links.nearly_full()
