"""Which worker holds which shard, slots and states when workers came or leave: pure arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from daskps.server.layout import Layout


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a shard is to be and what it is to hold."""

    address: str
    slots: tuple[int, ...]
    partitions: tuple[int, ...]
    """Whose state it is to hold."""


def seats_of(layout: Layout) -> dict[int, Seat]:
    """Return where everything is now."""
    return {
        s: Seat(ref.address, tuple(layout.slots_of(s)), tuple(layout.partitions_of(s)))
        for s, ref in layout.refs.items()
    }


def reseated(
    layout: Layout,
    workers: Sequence[str],
    leaving: Collection[str],
    *,
    one_each: bool,
    taken: Collection[int] = (),
) -> dict[int, Seat] | None:
    """Return where everything should be: nothing on workers that leave, and little is moved.

    Parameters
    ----------
    layout
        As it is.
    workers
        Addresses of all workers.
    leaving
        Those that must not hold anything.
    one_each
        Whether every worker gets one shard, and slots are dealt anew; else there are as many shards
        as before, and they move as a whole.
    taken
        Numbers that no new shard may have.

    Returns
    -------
    seats
        None if no worker stays.
    """
    stay = [w for w in workers if w not in leaving]
    if not stay:
        return None
    held: dict[str, list[int]] = {w: [] for w in stay}
    homeless: list[int] = []
    for shard in sorted(layout.refs):
        held.get(layout.refs[shard].address, homeless).append(shard)
    if not one_each:
        return _moved_whole(layout, held, homeless)
    for shards in held.values():
        homeless += shards[1:]
        del shards[1:]
    free = sorted(homeless, reverse=True)
    fresh = max([*layout.refs, *taken]) + 1
    for w in stay:
        if not held[w]:
            held[w] = [free.pop() if free else fresh]
            fresh += held[w] == [fresh]
    # numbers that stay where they are keep what they have
    where = {shards[0]: w for w, shards in held.items()}
    still = {s for s, w in where.items() if s in layout.refs and layout.refs[s].address == w}
    slots = dealt(layout.owners, sorted(where), still)
    homes = dealt(layout.homes, sorted(where), still)
    return _seats(where, slots, homes)


def _moved_whole(
    layout: Layout, held: dict[str, list[int]], homeless: list[int]
) -> dict[int, Seat]:
    for shard in homeless:
        min(held.values(), key=len).append(shard)
    while True:
        least, most = min(held.values(), key=len), max(held.values(), key=len)
        if len(most) - len(least) < 2:
            break
        least.append(most.pop())
    where = {s: w for w, shards in held.items() for s in shards}
    return _seats(where, layout.owners, layout.homes)


def _seats(where: dict[int, str], slots: Sequence[int], homes: Sequence[int]) -> dict[int, Seat]:
    return {
        shard: Seat(
            where[shard],
            tuple(i for i, s in enumerate(slots) if s == shard),
            tuple(p for p, s in enumerate(homes) if s == shard),
        )
        for shard in sorted(where)
    }


def dealt(owners: Sequence[int], shards: Sequence[int], still: Collection[int]) -> list[int]:
    """Return the owner of each thing so that all of `shards` have equally many.

    Owners in `still` keep what they have, up to their share: what is too much is taken from its
    end, so that runs stay runs.
    """
    share, more = divmod(len(owners), len(shards))
    held = {s: [i for i, o in enumerate(owners) if o == s and s in still] for s in shards}
    # those that have most keep one more
    order = sorted(shards, key=lambda s: (-len(held[s]), s))
    quota = {s: share + (n < more) for n, s in enumerate(order)}
    kept = {i: s for s in shards for i in held[s][: quota[s]]}
    free = iter([i for i in range(len(owners)) if i not in kept])
    for s in shards:
        for _ in range(quota[s] - len(held[s][: quota[s]])):
            kept[next(free)] = s
    return [kept[i] for i in range(len(owners))]
