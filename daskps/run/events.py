"""What happens in a run (events) and what is to be done about it (actions).

Frozen values without behaviour: the coordinator turns the former into the latter, engines do the
reverse, and `monitor` listens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Clocks = Mapping[int, int]
"""Finished clocks of each partition."""

# -- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A task's pushes are acknowledged by every shard."""

    token: int
    metrics: Mapping[str, float]
    worker: str = ""
    answers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What shards elsewhere answered; see `daskps.run.answers.Counts`."""


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task ended without having pushed everything."""

    token: int
    reason: Literal["stale", "lost", "error"]
    """``stale``: the layout had changed; ``lost``: a shard or worker was; ``error``: its own."""
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker came."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker went, with these shards."""

    worker: str
    shards: tuple[int, ...] = ()
    replicas: tuple[int, ...] = ()
    """Shards whose replica it held."""
    covered: bool = False
    """Whether `shards` all have replicas elsewhere."""


@dataclass(frozen=True, slots=True)
class WorkerLeaving:
    """A worker is about to be retired: what it holds must move first."""

    worker: str
    holds: bool = True
    """Whether it holds anything; if not, it must not be given anything any more."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Slots and states are where the action wanted them; nothing was lost."""

    number: int
    """Of the `Move` that this answers."""
    n_shards: int
    moved: int
    """Slots that changed their worker."""
    seconds: float = 0.0
    whole: bool = True
    """Whether every shard that can have a replica, and is to have one, has it."""


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """Everything is where it was."""

    number: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Recovered:
    """Every shard stands again; `clocks` is where partitions go on from."""

    number: int
    """Of the `Recover` that this answers."""
    clocks: Clocks
    cut: str | None
    seconds: float = 0.0
    by_replicas: bool = False
    """Whether replicas have taken the places of what was lost, and nothing was loaded."""
    recalled: int = 0
    """Rows of lost shards that workers had pulled since the cut, see `daskps.run.recall`."""


@dataclass(frozen=True, slots=True)
class RecoveryFailed:
    """No shard could be placed, or no worker is left."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class CutFrozen:
    """Every shard keeps the present state; training may go on while it is written."""

    cut: str


@dataclass(frozen=True, slots=True)
class CutPublished:
    """A checkpoint is complete."""

    cut: str
    clocks: Clocks


@dataclass(frozen=True, slots=True)
class CutFailed:
    """A checkpoint could not be written; the one before stays the last."""

    cut: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Metrics on the held-out dataset for the state at `clock`."""

    clock: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EvaluationFailed:
    """The held-out dataset could not be evaluated, mostly because a worker was lost."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Turn:
    """What a model did to its tables between two clocks (`daskps.run.plan.Conducted`)."""

    state: Mapping[str, Any]
    """What its next turn must know: numbers, texts, lists and mappings of them, as JSON has."""
    figures: Mapping[str, float]
    """For the history."""
    converged: bool = False
    """Whether training is over."""


@dataclass(frozen=True, slots=True)
class TurnTaken:
    """The model has acted on the tables: the next clock may begin."""

    number: int
    """Of the `TakeTurn` that this answers."""
    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The model could not act on every shard; what some have done they will not do again."""

    number: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user (Ctrl-C, a callback) wants to end at the next common clock."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time, in seconds of a monotonic clock; the coordinator has none of its own."""

    now: float


Event = (
    TaskDone
    | TaskFailed
    | WorkerJoined
    | WorkerLost
    | WorkerLeaving
    | Moved
    | MoveFailed
    | Recovered
    | RecoveryFailed
    | CutFrozen
    | CutPublished
    | CutFailed
    | Evaluated
    | EvaluationFailed
    | TurnTaken
    | TurnFailed
    | StopRequested
    | Tick
)

# -- actions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a task for (partition, clock)."""

    token: int
    partition: int
    clock: int
    copy_of: int | None = None
    """Token of the silent task that this is a speculative copy of."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Forget a task; whatever it still pushes is refused by id or generation."""

    token: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the workers of running tasks and shards whether they are alive; drop those that are not.

    Of a worker that is dropped there is news as of one that died.
    """


@dataclass(frozen=True, slots=True)
class FreezeCut:
    """Keep the present state of every shard, then write it in the background."""

    cut: str
    clocks: Clocks


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate the held-out dataset at the present state."""

    clock: int


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """Let the model act on the tables, after `clock` finished clocks and with nothing running.

    Where it only looks at them, tasks of the next clock may run.
    """

    number: int
    clock: int


@dataclass(frozen=True, slots=True)
class Move:
    """Deal slots and states to the workers that stay, with nothing running."""

    number: int
    leaving: tuple[str, ...]
    clocks: Clocks


@dataclass(frozen=True, slots=True)
class Recover:
    """Place the lost shards again, at the newest cut that is not ahead of `clocks`."""

    number: int
    shards: tuple[int, ...]
    how: Literal["promote", "rollback", "replay", "partial"]
    """``promote``: replicas take the places of the lost ones, and nothing goes back. ``rollback``:
    every shard goes back to the cut. ``replay``: only the lost ones do, and the clocks since are
    done again, which the others refuse by id. ``partial``: only the lost ones do, and everybody
    goes on from `clocks`."""
    clocks: Clocks
    there: bool = False
    """Whether such a cut was published: a store that has none is away just now."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Training is over and the tables hold the result."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Training cannot go on."""

    error: BaseException


Action = Launch | Abandon | Probe | FreezeCut | Evaluate | TakeTurn | Move | Recover | Finish | Fail
