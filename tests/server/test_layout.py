"""Layout: every slot has one shard, every shard a run of slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from in_process import refs
from msgspec.structs import replace

from daskps.server.layout import Layout, ShardRef

N = 64


@given(n_shards=st.integers(1, 100), n_slots=st.integers(1, 100))
def test_every_shard_holds_a_run_and_none_more_than_another_by_two(
    n_shards: int, n_slots: int
) -> None:
    layout = Layout.place(n_slots, refs(n_shards))
    sizes = [len(layout.slots_of(s)) for s in range(n_shards)]
    assert max(sizes) - min(sizes) <= 1
    runs = layout.runs()
    assert all(len(held) == 1 for held in runs.values())
    assert {s: list(range(*held[0])) for s, held in runs.items()} == {
        s: slots for s, slots in layout.by_shard().items() if slots
    }


def test_slots_that_were_moved_make_more_runs() -> None:
    layout = replace(Layout.place(6, refs(3)), owners=(0, 2, 2, 1, 1, 0))
    assert layout.runs() == {0: [(0, 1), (5, 6)], 2: [(1, 3)], 1: [(3, 5)]}


def test_every_slot_has_one_shard_in_both_views() -> None:
    layout = Layout.place(N, refs(5))
    held = layout.by_shard()
    assert sorted(s for slots in held.values() for s in slots) == list(range(N))
    assert held == {shard: layout.slots_of(shard) for shard in range(5)}
    assert layout.n_slots == N


def test_a_shard_without_slots_is_listed() -> None:
    held = Layout.place(1, refs(3)).by_shard()
    assert sorted(len(slots) for slots in held.values()) == [0, 0, 1]


def test_a_new_incarnation_raises_the_generation_and_keeps_owners() -> None:
    layout = Layout.place(N, refs(3))
    again = ShardRef(1, 1, "elsewhere", "shard-1-i1")
    after = layout.replace({1: again})
    assert (after.generation, after.owners) == (layout.generation + 1, layout.owners)
    assert after.refs == {0: layout.refs[0], 1: again, 2: layout.refs[2]}
    assert layout.refs[1].incarnation == 0
