"""Where shards, slots and states go when workers come or leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daskps.run.seating import Seat, dealt, reseated, seats_of
from daskps.server.layout import Layout, ShardRef

SLOTS, PARTITIONS = 16, 5


def layout(at: list[str]) -> Layout:
    refs = {s: ShardRef(s, 0, address, f"k{s}") for s, address in enumerate(at)}
    homes = tuple(p % len(at) for p in range(PARTITIONS))
    return Layout(3, Layout.place(SLOTS, refs).owners, refs, homes)


def as_layout(seats: dict[int, Seat]) -> Layout:
    refs = {s: ShardRef(s, 0, seat.address, f"k{s}") for s, seat in seats.items()}
    owners = {i: s for s, seat in seats.items() for i in seat.slots}
    homes = {p: s for s, seat in seats.items() for p in seat.partitions}
    return Layout(
        1,
        tuple(owners[i] for i in range(SLOTS)),
        refs,
        tuple(homes[p] for p in range(PARTITIONS)),
    )


WORKERS = st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), min_size=1, max_size=6)


@given(steps=WORKERS, one_each=st.booleans(), n_shards=st.integers(1, 6))
def test_nothing_is_lost_or_doubled_and_nobody_who_leaves_holds_anything(
    steps: list[set[str]], one_each: bool, n_shards: int
) -> None:
    first = sorted(steps[0])
    now = layout([first[s % len(first)] for s in range(n_shards)])
    for workers in steps:
        everybody = sorted(workers | {ref.address for ref in now.refs.values()})
        leaving = set(everybody) - workers
        seats = reseated(now, everybody, leaving, one_each=one_each)
        assert seats is not None
        after = as_layout(seats)  # fails when a slot or a state has no seat
        assert sum(len(s.slots) for s in seats.values()) == SLOTS
        at = [s.address for s in seats.values()]
        assert set(at) <= workers
        sizes = [len(s.slots) for s in seats.values()]
        if one_each:
            assert sorted(at) == sorted(workers)
            assert max(sizes) - min(sizes) <= 1
        else:
            assert set(seats) == set(now.refs)
            loads = [at.count(w) for w in workers]
            assert max(loads) - min(loads) <= 1
        assert reseated(after, sorted(workers), (), one_each=one_each) == seats_of(after)
        now = after


def test_a_worker_that_joins_takes_its_share_from_the_ends_of_runs() -> None:
    seats = reseated(layout(["a", "b"]), ["a", "b", "c"], (), one_each=True)
    assert seats is not None
    assert seats[0].slots == (0, 1, 2, 3, 4, 5)
    assert seats[1].slots == (8, 9, 10, 11, 12)
    assert seats[2] == Seat("c", (6, 7, 13, 14, 15), (4,))


def test_what_a_leaving_worker_held_goes_to_all_that_stay() -> None:
    seats = reseated(layout(["a", "b", "c"]), ["a", "b", "c"], ["b"], one_each=True)
    assert seats is not None
    assert {s: len(seat.slots) for s, seat in seats.items()} == {0: 8, 2: 8}


def test_nobody_stays() -> None:
    assert reseated(layout(["a"]), ["a"], ["a"], one_each=True) is None


def test_owners_that_stay_keep_what_they_have() -> None:
    assert dealt([0, 0, 1, 1, 2, 2], [0, 1, 2], {0, 1, 2}) == [0, 0, 1, 1, 2, 2]
    assert dealt([0, 0, 1, 1, 2, 2], [0, 1, 2], {0, 2}) == [0, 0, 1, 1, 2, 2]
    assert dealt([0, 0, 0, 0], [0, 5], {0}) == [0, 0, 5, 5]
