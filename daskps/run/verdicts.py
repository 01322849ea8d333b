"""What a run that cannot go on says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daskps.errors import RunFailed, RunTimeout


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
