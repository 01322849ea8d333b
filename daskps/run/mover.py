"""Moving slots and states, while nothing runs, from the shards that hold them to new ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from daskps.errors import RunFailed, ShardLost
from daskps.run import events as ev
from daskps.run.replicas import complete
from daskps.run.seating import Seat, reseated, seats_of
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Ask

if TYPE_CHECKING:
    from daskps.run.engine import Engine

Source = tuple[ShardRef, Sequence[int], Sequence[int]]
"""A shard, and the slots and partitions' states that it hands over."""


def move(engine: Engine, action: ev.Move) -> ev.Moved | ev.MoveFailed:
    """Deal what the shards hold to the workers that stay.

    Shards that gain or lose anything get a new incarnation, which takes its rows from the old ones
    directly; only then does the layout change, and the old ones are let go. A shard on the same
    worker hands over references. Whatever fails before leaves everything as it was.
    """
    start, layout = time.monotonic(), engine.layout
    workers, taken = engine.workers(), engine.replica_numbers
    seats = reseated(layout, workers, action.leaving, one_each=engine.one_each, taken=taken)
    if seats is None:
        return ev.MoveFailed(action.number, RunFailed("no worker stays to hold the shards."))
    now = seats_of(layout)
    changed = [s for s in seats if seats[s] != now.get(s)]
    if changed and (failed := _shards(engine, action, seats, changed)):
        return failed
    whole = not engine.keeps_replicas or complete(engine, action, changed)
    # work stealing may put a shard where nobody wanted it
    whole &= not any(ref.address in action.leaving for ref in engine.layout.refs.values())
    if changed or engine.layout is not layout:
        engine.all_moved()
    moved = sum(_at(layout, s) != _at(engine.layout, s) for s in range(layout.n_slots))
    seconds = time.monotonic() - start
    return ev.Moved(action.number, len(seats), moved, seconds, whole=whole)


def _shards(
    engine: Engine, action: ev.Move, seats: dict[int, Seat], changed: Sequence[int]
) -> ev.MoveFailed | None:
    """Move what shards hold; return nothing if all went well."""
    before = dict(engine.shards)
    try:
        new = _fill(engine, action, seats, changed)
    except Exception as error:  # whatever it was, the old shards have not noticed
        _let_go(engine, before)
        return ev.MoveFailed(action.number, error)
    engine.layout, engine.n_shards = new, len(seats)
    stay = {*seats, *engine.replica_numbers}
    _let_go(engine, {s: held for s, held in engine.shards.items() if s in stay})
    kept: list[tuple[ShardRef, str, dict[str, Any]]] = [
        (ref, "advance", {**_news(new, action), "mirrored": s in engine.replicas})
        for s, ref in new.refs.items()
        if s not in changed
    ]
    if any(isinstance(a, ShardLost) for a in engine.call(kept)) and (lost := engine.silent()):
        engine.post(lost)
    return None


def _let_go(engine: Engine, but: dict[int, Any]) -> None:
    engine.shards.clear()
    engine.shards.update(but)


def _at(layout: Layout, slot: int) -> str:
    return layout.refs[layout.owners[slot]].address


def _news(layout: Layout, action: ev.Move) -> dict[str, Any]:
    return {"generation": layout.generation, "clocks": dict(action.clocks)}


def _fill(
    engine: Engine, action: ev.Move, seats: dict[int, Seat], changed: Sequence[int]
) -> Layout:
    """Make the new incarnations, let them take their rows, and return the layout to come."""
    old = engine.layout
    refs = engine.make_at(
        {s: seats[s].address for s in changed},
        {s: list(seats[s].slots) for s in changed},
        old.generation + 1,
    )
    owners, homes = list(old.owners), list(old.homes)
    for s, seat in seats.items():
        for slot in seat.slots:
            owners[slot] = s
        for p in seat.partitions:
            homes[p] = s
    kept = {s: ref for s, ref in old.refs.items() if s in seats and s not in changed}
    new = Layout(old.generation + 1, tuple(owners), {**kept, **refs}, tuple(homes))
    calls = [
        (refs[s], "move_in", {**_news(new, action), "sources": _sources(old, seats[s])})
        for s in changed
    ]
    for answer in engine.call(calls):
        if isinstance(answer, BaseException):
            raise answer
    return new


def _sources(old: Layout, seat: Seat) -> list[Source]:
    found: dict[int, tuple[list[int], list[int]]] = {}
    for slot in seat.slots:
        found.setdefault(old.owners[slot], ([], []))[0].append(slot)
    for p in seat.partitions:
        found.setdefault(old.homes[p], ([], []))[1].append(p)
    return [(old.refs[s], *parts) for s, parts in sorted(found.items())]


def question(source: Source, generation: int) -> Ask:
    """Return what is asked of a source by a shard of the layout `generation`."""
    _, slots, partitions = source
    arrays = {"slots": np.array(slots, np.int64), "partitions": np.array(partitions, np.int64)}
    return Ask(generation - 1, 0, 0, "move", arrays)
