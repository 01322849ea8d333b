"""After a partial recovery: lost rows as tasks have pulled them last, where a cut is older.

In SSP and ASP the shards that were lost go back to the newest cut while all others stay. What they
had learnt since is not gone altogether: every worker still has what its tasks pulled last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from daskps.server.layout import ShardRef
from daskps.server.messages import Arrays

if TYPE_CHECKING:
    from daskps.run.engine import Engine

logger = logging.getLogger("daskps")

LONGEST = 5.0
"""Seconds after which no more is asked for: what is left stays as in the cut."""
AT_ONCE = 64 * 2**20
"""Bytes of rows that are asked of each worker's threads in one message, about."""


def recall(engine: Engine, shards: Iterable[int]) -> int:
    """Bring `shards`, which have just been restored from a cut, nearer to what they were.

    It is worth a few seconds and no failure: whoever does not answer is passed over.

    Returns
    -------
    n
        How many rows were found, again and again where several threads had pulled them.
    """
    n = 0
    tables = [t.name for t in engine.plan.server.tables if t.updater.recalls]
    end, refs = time.monotonic() + LONGEST, engine.layout.refs
    # no shard: a worker need not hold one to have pulled
    asked = [ShardRef(-1, 0, address, f"recent {address}") for address in engine.addresses()]
    for ref in (refs[s] for s in shards if tables):
        for slots in _portions(engine, engine.layout.slots_of(ref.shard)):
            if (rest := end - time.monotonic()) <= 0:
                logger.info("not all that workers had pulled was recalled in %s s", LONGEST)
                return n
            question = {"run": engine.plan.run, "tables": tables, "slots": slots}
            answers = engine.ask([(a, "recent", question) for a in asked], rest)
            parts: list[Arrays] = [p for some in answers if isinstance(some, list) for p in some]
            (found,) = engine.ask([(ref, "recall", {"parts": parts})], LONGEST)
            n += found if isinstance(found, int) else 0
    return n


def _portions(engine: Engine, slots: Sequence[int]) -> Iterator[list[int]]:
    """Cut slots into portions of at most about `AT_ONCE` bytes."""
    n = max(1, AT_ONCE * engine.plan.server.n_slots // max(1, engine.nbytes))
    for first in range(0, len(slots), n):
        yield list(slots[first : first + n])
