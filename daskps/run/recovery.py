"""Standing again after a loss: by replicas, or from a cut, or from the beginning."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from daskps.errors import CheckpointError, RunFailed
from daskps.run import checkpoint
from daskps.run import events as ev
from daskps.run.replicas import promote, release

if TYPE_CHECKING:
    from daskps.run.engine import Engine

logger = logging.getLogger("daskps")


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
    cuts: list[str | None] = [None]  # the beginning
    if engine.store is not None:
        cuts = [*checkpoint.usable(engine.store, action.clocks), None]
    while time.monotonic() - start < engine.recovery_timeout:
        while hung := engine.silent(lost):  # news of them comes late or never
            lost |= set(hung.shards)
        down |= lost
        if len(down) == engine.n_shards:  # nobody holds anything newer than the cut
            action = replace(action, how="rollback")
        try:
            again, clocks = engine.stand_up(lost, action, cuts[0])
        except CheckpointError as error:
            logger.warning("%s", error)
            del cuts[0]
            if cuts[0] is None:
                action = replace(action, how="rollback")
            continue
        except (TimeoutError, OSError) as error:
            return ev.RecoveryFailed(error)
        if not again:
            return ev.Recovered(action.number, clocks, cuts[0], time.monotonic() - start)
        lost = again
    return ev.RecoveryFailed(
        RunFailed(
            f"shards {sorted(lost)} did not stand again within {engine.recovery_timeout} s; "
            "expected at least one worker that stays. See the workers' logs."
        )
    )
