"""Layout: shards that come and go move only the slots they must, and none is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import refs

from daskps.server.layout import Layout, ShardRef, owner

N = 64


def owners(shards: set[int]) -> list[int]:
    return [owner(slot, tuple(sorted(shards))) for slot in range(N)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_no_slot_is_lost_or_doubled_and_only_needed_ones_move(toggled: list[int]) -> None:
    shards = {10}
    before = owners(shards)
    for shard in toggled:
        shards ^= {shard}
        now = owners(shards)
        assert set(now) <= shards
        for old, new in zip(before, now, strict=True):
            # a slot moves to the shard that came, or away from the one that left
            assert old == new or shard in (old, new)
        before = now


def test_a_join_moves_its_share_of_the_slots() -> None:
    for n in (2, 4, 8):
        moved = [
            sum(a != b for a, b in zip(owners(set(range(n))), owners(s), strict=True))
            for s in [set(range(n)) | {100 + i} for i in range(20)]
        ]
        share = sum(moved) / 20 / N
        assert 0.7 / (n + 1) < share < 1.3 / (n + 1), n


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
