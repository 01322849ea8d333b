"""What goes wrong in a run and when: a description that is drawn from a seed, written and read.

Faults come by progress, not by the clock: each waits until so many tasks have ended. Whom they hit
is a number, which is counted off among the workers that are there at that moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec
import numpy as np


class Fault(msgspec.Struct, frozen=True, tag_field="fault", tag=lambda name: name.lower()):
    """Something that goes wrong once `after` tasks have ended, those done again included."""

    after: int


class Kill(Fault, frozen=True):
    """A worker process dies by SIGKILL; with its `nanny`, nothing starts it again."""

    victim: int
    nanny: bool = False


class Stop(Fault, frozen=True):
    """A worker process stops (SIGSTOP) and goes on (SIGCONT) after so many seconds."""

    victim: int
    seconds: float


class Slow(Fault, frozen=True):
    """A worker process gets a share of the time for so many seconds, in slices of 50 ms."""

    victim: int
    seconds: float
    share: float = 0.2


class Join(Fault, frozen=True):
    """A worker joins."""


class Retire(Fault, frozen=True):
    """A worker is retired by `Client.retire_workers`."""

    victim: int


class DiskFull(Fault, frozen=True):
    """For some seconds no worker can write a file of more than 64 bytes: chunks are torn."""

    seconds: float


class StoreGone(Fault, frozen=True):
    """For some seconds the checkpoint's store cannot be reached by anybody."""

    seconds: float


class TornChunk(Fault, frozen=True):
    """A chunk of the newest published cut loses its second half."""

    which: int


AnyFault = Kill | Stop | Slow | Join | Retire | DiskFull | StoreGone | TornChunk

RATES: Mapping[str, float] = {
    "kill": 7.0,
    "slow": 0.5,
    "join": 1.5,
    "retire": 1.0,
    "diskfull": 0.5,
    "storegone": 0.5,
    "tornchunk": 0.5,
    "stop": 0.1,
}
"""Faults of each kind that a run has on average.

With 7 kills expected, and Poisson as they are, a job that must begin anew after each would end
without one with a probability of exp(-7) < 0.001.
"""


class Schedule(msgspec.Struct, frozen=True):
    """Faults of one run, in the order in which they come."""

    seed: int
    faults: tuple[AnyFault, ...]

    @classmethod
    def draw(cls, seed: int, n_tasks: int, rates: Mapping[str, float] = RATES) -> Self:
        """Draw the faults of a run of `n_tasks` tasks.

        Parameters
        ----------
        seed
            The same gives the same faults.
        n_tasks
            Tasks of the run when nothing goes wrong: partitions times clocks.
        rates
            Faults of each kind in a run, on average.

        Raises
        ------
        ValueError
            If a kind is unknown.
        """
        if unknown := sorted(set(rates) - set(RATES)):
            raise ValueError(f"no such faults: {unknown!r}; expected some of {sorted(RATES)}.")
        rng = np.random.default_rng(seed)
        found = [
            _fault(kind, int(rng.integers(n_tasks)), rng)
            for kind in sorted(rates)
            for _ in range(rng.poisson(rates[kind]))
        ]
        return cls(seed, tuple(sorted(found, key=lambda f: f.after)))

    def to_json(self) -> bytes:
        """Return the description as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Return the schedule that `to_json` wrote."""
        return msgspec.json.decode(text, type=cls)

    def count(self, kind: type[Fault]) -> int:
        """Return how many faults are of a kind."""
        return sum(isinstance(f, kind) for f in self.faults)


def all_or_nothing(kills: float) -> float:
    """Return the probability that a job ends that must begin anew after each kill.

    Parameters
    ----------
    kills
        Kills that a run of its length meets on average.
    """
    return math.exp(-kills)


def victim(number: int, workers: Sequence[str]) -> str | None:
    """Return the worker that a fault hits: its number counted off; None if there is none."""
    return sorted(workers)[number % len(workers)] if workers else None


def _fault(kind: str, after: int, rng: np.random.Generator) -> AnyFault:
    who = int(rng.integers(1000))
    some = round(float(rng.uniform(0.2, 2.0)), 2)
    match kind:
        case "kill":
            return Kill(after, who, nanny=bool(rng.random() < 0.3))
        case "stop":
            return Stop(after, who, 8 * some)
        case "slow":
            return Slow(after, who, some)
        case "join":
            return Join(after)
        case "retire":
            return Retire(after, who)
        case "diskfull":
            return DiskFull(after, some)
        case "storegone":
            return StoreGone(after, some)
    return TornChunk(after, who)
