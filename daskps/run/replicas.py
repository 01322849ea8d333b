"""Replicas: every shard once more on another worker, to take its place when it is lost.

A replica is a shard with a number of its own, which no layout names. Its shard hands on to it what
it counts (`daskps.server.mirror`). It is made while nothing runs; where it is, its engine knows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from daskps.errors import ShardLost
from daskps.run import events as ev
from daskps.run.verdicts import raise_first
from daskps.server.layout import Layout, ShardRef

if TYPE_CHECKING:
    from daskps.run.engine import ControlCall, Engine

logger = logging.getLogger("daskps")


def where_to(
    layout: Layout, kept: Mapping[int, ShardRef], workers: Sequence[str]
) -> dict[int, str]:
    """Return a worker for the replica of each shard that has none; nothing where there is no other.

    Parameters
    ----------
    layout
        Where the shards are.
    kept
        Replicas that there are, by the number of their shard.
    workers
        Addresses that may hold some.
    """
    load = {w: sum(ref.address == w for ref in kept.values()) for w in workers}
    found: dict[int, str] = {}
    for shard, ref in sorted(layout.refs.items()):
        others = [w for w in workers if w != ref.address]
        if shard in kept or not others:
            continue
        found[shard] = min(others, key=lambda w: (load[w], w))
        load[found[shard]] += 1
    return found


def complete(engine: Engine, action: ev.Move, changed: Collection[int]) -> bool:
    """Give a replica to every shard that has none, or one in a place that does not do any more.

    Parameters
    ----------
    engine
        Whose layout is as it shall be.
    action
        The move that this belongs to.
    changed
        Shards that are not what they were: their replicas are of no use.

    Returns
    -------
    whole
        Whether every shard has a replica that can have one.
    """
    layout = engine.layout
    there = [w for w in engine.workers() if w not in action.leaving]
    kept = {
        s: ref
        for s, ref in engine.replicas.items()
        if s in layout.refs and s not in changed
        if ref.address in there and ref.address != layout.refs[s].address
    }
    wanted = where_to(layout, kept, there)
    if not wanted and not changed and len(kept) == len(engine.replicas):
        return True
    release(engine, set(engine.replicas) - set(kept))
    try:
        made = _copies(engine, action, wanted)
    except Exception as error:  # the shards themselves have not noticed
        logger.warning("no replicas could be made: %s", error)
        made = {}
    engine.replicas |= made
    refs = layout.refs
    engine.call([(refs[s], "mirror", {"replica": ref}) for s, ref in made.items()])
    following = Layout(layout.generation + 1, layout.owners, refs, layout.homes)
    if _enter(engine, following, action.clocks) and (lost := engine.silent()):
        engine.post(lost)
    return set(engine.replicas) >= set(wanted)


def _copies(engine: Engine, action: ev.Move, wanted: Mapping[int, str]) -> dict[int, ShardRef]:
    """Return new replicas that hold what their shards do."""
    layout = engine.layout
    first = max([*layout.refs, *engine.replica_numbers]) + 1
    numbers = {first + i: s for i, s in enumerate(sorted(wanted))}
    generation = layout.generation + 1
    slots = {n: layout.slots_of(s) for n, s in numbers.items()}
    refs = engine.make_at({n: wanted[s] for n, s in numbers.items()}, slots, generation)
    calls: list[ControlCall] = []
    for n, s in numbers.items():
        source = (layout.refs[s], slots[n], layout.partitions_of(s))
        news = {"generation": generation, "clocks": dict(action.clocks), "sources": [source]}
        calls.append((refs[n], "move_in", news))
    answers = dict(zip(numbers, engine.call(calls), strict=True))
    made = {}
    for n, s in numbers.items():
        # where it was wanted there may have been no place: beside its shard it is of no use
        if isinstance(answers[n], BaseException) or refs[n].address == layout.refs[s].address:
            engine.shards.pop(n, None)
        else:
            made[s] = refs[n]
    return made


def _enter(engine: Engine, layout: Layout, clocks: ev.Clocks) -> set[int]:
    """Let shards, and then replicas, enter a layout; return the shards that did not answer.

    The shards first: what they are still handing on must find its replica in the old one.
    """
    engine.layout = layout
    news = {"generation": layout.generation, "clocks": dict(clocks)}
    shards: list[ControlCall] = [
        (ref, "advance", {**news, "mirrored": s in engine.replicas})
        for s, ref in layout.refs.items()
    ]
    followed = dict(zip(layout.refs, engine.call(shards), strict=True))
    gone = {s for s, answer in followed.items() if isinstance(answer, ShardLost)}
    raise_first([answer for s, answer in followed.items() if s not in gone])
    release(engine, [s for s in engine.replicas if s not in gone and not followed[s]])
    copies = engine.call([(ref, "advance", news) for ref in engine.replicas.values()])
    there = dict(zip(list(engine.replicas), copies, strict=True))
    release(engine, [s for s, answer in there.items() if isinstance(answer, BaseException)])
    return gone


def release(engine: Engine, shards: Collection[int]) -> None:
    """Let go of the replicas of `shards`."""
    for shard in shards:
        engine.shards.pop(engine.replicas.pop(shard).shard, None)


def promote(engine: Engine, action: ev.Recover) -> ev.Recovered | None:
    """Let replicas take the places of lost shards, and everybody go on with what he has.

    Returns
    -------
    event
        None if a lost shard has no replica: then those of the others are let go of, too.
    """
    start, lost = time.monotonic(), set(action.shards)
    while time.monotonic() - start < engine.recovery_timeout:
        while news := engine.silent(lost):
            lost |= set(news.shards)
            release(engine, [s for s in news.replicas if s in engine.replicas])
        if not lost <= set(engine.replicas):
            break
        taken = {s: engine.replicas.pop(s) for s in lost}
        lost = _enter(engine, _taken_over(engine.layout, taken), action.clocks)
        for s in taken:
            engine.shards.pop(s, None)
        if not lost:
            seconds = time.monotonic() - start
            return ev.Recovered(action.number, action.clocks, None, seconds, by_replicas=True)
    release(engine, list(engine.replicas))
    return None


def _taken_over(layout: Layout, by: Mapping[int, ShardRef]) -> Layout:
    """Return the next layout, with replicas in the places of lost shards."""
    now = {s: ref.shard for s, ref in by.items()}
    refs = {s: ref for s, ref in layout.refs.items() if s not in by}
    return Layout(
        layout.generation + 1,
        tuple(now.get(s, s) for s in layout.owners),
        {**refs, **{ref.shard: ref for ref in by.values()}},
        tuple(now.get(s, s) for s in layout.homes),
    )


def loss_of(engine: Engine, address: str, shards: Collection[int] | None = None) -> ev.WorkerLost:
    """Return the news that a worker is lost, with what it held.

    Parameters
    ----------
    shards
        Shards that are lost; by default those at `address`.
    """
    refs, replicas = engine.layout.refs, engine.replicas
    if shards is None:
        shards = [s for s, ref in refs.items() if ref.address == address]
    copies = tuple(s for s, ref in replicas.items() if ref.address == address)
    covered = all(s in replicas and s not in copies for s in shards)
    return ev.WorkerLost(address, tuple(shards), copies, covered=covered)


def leaving(engine: Engine, address: str) -> ev.WorkerLeaving:
    """Return the news that a worker is about to be retired, with whether it holds anything."""
    held = (*engine.layout.refs.values(), *engine.replicas.values())
    return ev.WorkerLeaving(address, any(ref.address == address for ref in held))
