"""When a run cannot go on, and what it says then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from daskps.errors import NonFinitePush, RunFailed, RunTimeout
from daskps.run import events as ev
from daskps.run.policy import Policy


class Failures:
    """How often tasks and turns have failed."""

    def __init__(self) -> None:
        self._times: Counter[tuple[int, int, bool]] = Counter()

    def task(
        self, task: tuple[int, int], event: ev.TaskFailed, policy: Policy
    ) -> BaseException | None:
        """Note that (partition, clock) failed; return why it is hopeless, or None."""
        own = event.reason == "error"
        self._times[*task, own] += 1
        bound = policy.max_attempts if own else policy.max_refusals
        if not isinstance(event.error, NonFinitePush) and self._times[*task, own] < bound:
            return None
        return event.error or failures(task, bound, event.reason)

    def turn(self, clock: int, policy: Policy) -> bool:
        """Note that the turn after `clock` failed; return whether that is hopeless."""
        self._times[-1, clock, False] += 1
        return self._times[-1, clock, False] >= policy.max_attempts


def raise_first(answers: list[Any]) -> list[Any]:
    """Return answers unless one of them is an error."""
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def silence(seconds: float, tasks: Iterable[tuple[int, int]]) -> RunTimeout:
    """Return the error of a run in which no task ends."""
    return RunTimeout(
        f"no task finished for {seconds:.0f} s, with speculative copies running; waited for "
        f"(partition, clock) {sorted(set(tasks))[:5]}. Look at the workers' logs; fewer "
        "rows_per_clock make shorter tasks."
    )


def failures(task: tuple[int, int], times: int, reason: str) -> RunFailed:
    """Return the error of a task that fails again and again without one of its own."""
    return RunFailed(
        f"(partition, clock) {task} failed {times} times, the reason being {reason!r}."
    )


def losses(times: int, bound: int) -> RunFailed:
    """Return the error of a run that loses shards faster than it gets on."""
    return RunFailed(
        f"{times} losses of shards without a finished clock between them; expected at most "
        f"{bound}. See in the workers' logs why they die (memory, pre-emption)."
    )
