"""An engine of one process whose workers have names, come, leave and die."""

from __future__ import annotations

from typing import Any

import pytest
from movers import Kept, Movers
from training import TroubledEngine, data

from daskps.run import events as ev
from daskps.run import launch
from daskps.run.launch import RunOptions, run_training
from daskps.run.replicas import loss_of

OPTIONS = {"max_iter": 3, "clocks_per_pass": 2, "n_shards": 2}


class Town(TroubledEngine):
    """Has workers by name, all of them in this process, that come and leave."""

    one_each = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.there = ["w0"]
        self.moves: list[ev.Move] = []
        self.settled = True

    def workers(self) -> list[str]:
        return self.there

    def execute(self, action: ev.Action, ledger: Any) -> None:
        if isinstance(action, ev.Move):
            self.moves.append(action)
        super().execute(action, ledger)

    def join(self, worker: str) -> None:
        self.there = [*self.there, worker]
        self.post(ev.WorkerJoined(worker))

    def die(self, worker: str) -> None:
        """Lose a worker with the shards and replicas that it holds."""
        self.there = [w for w in self.there if w != worker]
        refs = [*self.layout.refs.values(), *self.replicas.values()]
        gone = [ref.shard for ref in refs if ref.address == worker]
        for number in gone:
            self._hosts.pop(number, None)
        self._inbox.put(lambda: loss_of(self, worker))

    def leave(self, worker: str) -> None:
        self.post(ev.WorkerLeaving(worker))


def run(trained: Any, trouble: Any = None, **options: Any) -> tuple[Any, Kept, Town]:
    made: list[Town] = []

    def make(*args: Any, **kwargs: Any) -> Town:
        made.append(Town(*args, **kwargs))
        made[0].trouble = trouble
        return made[0]

    kept = Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "InProcessEngine", make)
        collect = kept if isinstance(trained, Movers) else None
        outcome = run_training(
            trained, data(), RunOptions(**{**OPTIONS, **options}), collect=collect
        )
    return outcome, kept, made[0]


def bits(outcome: Any) -> bytes:
    return b"".join(values.tobytes() for _, values in outcome.values.values())
