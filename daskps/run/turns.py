"""Letting a model act on its tables between two clocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from daskps.errors import ShardLost, StaleLayout
from daskps.run import events as ev
from daskps.run.ledger import Ledger
from daskps.run.plan import Conducted, Model, Onlooking

Apply = Callable[[str, dict[str, Any], tuple[int, int]], Any]
"""Runs a server function on every shard, once for a (clock, number), and merges the parts."""


def take_turn(
    model: Model, number: int, clock: int, ledger: Ledger, apply: Apply
) -> ev.TurnTaken | ev.TurnFailed:
    """Let the model act after `clock` finished clocks."""
    calls = itertools.count()

    def server(function: str, **params: Any) -> Any:
        assert not isinstance(model, Onlooking) or function in model.looks_at, function
        # a repeated turn makes the same calls, which shards that have answered only look up
        return apply(function, params, (clock, next(calls)))

    last = ledger.turns.get(clock - 1)
    assert isinstance(model, Conducted), model
    try:
        turn = model.take_turn(server, ledger.sums(clock - 1), None if last is None else last.state)
    except (ShardLost, StaleLayout, TimeoutError) as error:
        return ev.TurnFailed(number, error)
    return ev.TurnTaken(number, turn)
