"""Standing again after a loss: by replicas, or from a cut, or from the beginning."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from daskps.errors import CheckpointError, RunFailed
from daskps.run import checkpoint
from daskps.run import events as ev
from daskps.run.recall import recall
from daskps.run.replicas import promote, release

if TYPE_CHECKING:
    from daskps.run.engine import Engine

logger = logging.getLogger("daskps")

AWAY = 3.0
"""Seconds for which a store that has cuts may be away before everybody begins again."""


class Way(NamedTuple):
    """A cut to go back to."""

    cut: str | None
    """None is the beginning."""
    whole: bool
    """Whether all that partitions kept must be readable."""


def recover(engine: Engine, action: ev.Recover) -> ev.Recovered | ev.RecoveryFailed:
    """Let every shard stand again, as `action` says, or as far back as must be."""
    if action.how == "promote":
        if (stood := promote(engine, action)) is not None:
            return stood
        # in one go with a replica was lost what it was a replica of
        shards = tuple(s for s in action.shards if s in engine.layout.refs)
        action = replace(action, how="rollback", shards=shards)
    release(engine, list(engine.replicas))
    start = time.monotonic()
    lost, down = set(action.shards), set(action.shards)
    ways = _ways_back(engine, action)
    while time.monotonic() - start < engine.recovery_timeout:
        while hung := engine.silent(lost):  # news of them comes late or never
            lost |= set(hung.shards)
        down |= lost
        # nobody holds anything newer than the cut, or there is none that could be read
        if len(down) == engine.n_shards or ways[0].cut is None:
            action = replace(action, how="rollback")
        try:
            again, clocks = engine.stand_up(lost, action, *ways[0])
        except CheckpointError as error:
            logger.warning("%s", error)
            del ways[0]
            continue
        except (TimeoutError, OSError) as error:
            return ev.RecoveryFailed(error)
        if not again:
            recalled = recall(engine, sorted(down)) if action.how == "partial" else 0
            seconds = time.monotonic() - start
            return ev.Recovered(action.number, clocks, ways[0].cut, seconds, recalled=recalled)
        lost = again
    return ev.RecoveryFailed(
        RunFailed(
            f"shards {sorted(lost)} did not stand again within {engine.recovery_timeout} s; "
            "expected at least one worker that stays. See the workers' logs."
        )
    )


def _ways_back(engine: Engine, action: ev.Recover) -> list[Way]:
    """Return the cuts to go back to, the best first, and at last the beginning."""
    store = engine.store
    cuts = [] if store is None else _cuts(store, action)
    ways, torn = [Way(cut, whole=True) for cut in cuts], []
    if store is not None and engine.plan.rebuilds:
        torn = [Way(c, whole=False) for c in cuts if goes_on(store, c, engine.last_clock)]
    # where the others stay, the newest cut of the lost ones is nearest to them, whole or not
    ways = torn if torn and action.how == "partial" else [*ways, *torn]
    return [*ways, Way(None, whole=True)]


def _cuts(store: str, action: ev.Recover) -> list[str]:
    """Return the cuts to go back to; a store that is away is waited for."""
    until = time.monotonic() + AWAY
    while not (cuts := checkpoint.usable(store, action.clocks)) and action.there:
        if time.monotonic() > until:
            logger.warning("no checkpoint could be read in %s for %g s", store, AWAY)
            break
        time.sleep(0.1)
    return cuts


def goes_on(store: str, cut: str, last_clock: float) -> bool:
    """Return whether steps come after a cut, which can make again what partitions kept."""
    try:
        return min(checkpoint.read_manifest(store, cut).clocks) < last_clock
    except CheckpointError:  # it was deleted meanwhile
        return False
