"""Tasks of one clock read rows once for a process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from daskps.errors import ShardLost
from daskps.server.messages import Arrays
from daskps.server.together import Together

PATIENCE = 30.0


class Source:
    """Answers with the number of the question, once it is let go."""

    def __init__(self) -> None:
        self.asked, self.go = 0, threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> Arrays:
        self.asked += 1
        assert self.go.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return {"counts": np.array([self.asked])}


def waiting(together: Together, source: Source, n: int) -> list[Arrays | BaseException | None]:
    """Let `n` threads ask for the same; return what each got."""
    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(together.rows, "run", "words", (1, 5), source) for _ in range(n)]
        source.go.set()
        return [f.exception(PATIENCE) or f.result() for f in futures]


def test_all_tasks_of_a_clock_have_what_the_first_asked_for() -> None:
    together, source = Together(), Source()
    found = waiting(together, source, 4)
    assert source.asked == 1
    first = found[0]
    assert isinstance(first, dict)
    assert all(f is first for f in found)
    with pytest.raises(ValueError, match="read-only"):
        first["counts"][0] = 7


@pytest.mark.parametrize(
    "other", [("run", "words", (1, 6)), ("run", "words", (2, 5)), ("else", "words", (1, 5))]
)
def test_another_clock_layout_or_run_is_asked_anew(other: tuple[str, str, tuple[int, int]]) -> None:
    together, source = Together(), Source()
    source.go.set()
    assert together.rows("run", "words", (1, 5), source)["counts"] == 1
    assert together.rows(*other, source)["counts"] == 2
    assert together.rows("run", "topics", (1, 5), source)["counts"] == 3


def test_a_loss_is_of_all_who_waited_and_the_next_one_asks_again() -> None:
    together, source = Together(), Source()
    source.error = ShardLost("gone")
    found = waiting(together, source, 4)
    assert all(isinstance(f, ShardLost) for f in found)
    lost, source.error = source.asked, None
    assert together.rows("run", "words", (1, 5), source)["counts"] == lost + 1


def test_what_was_let_go_of_is_asked_for_again() -> None:
    together, source = Together(), Source()
    source.go.set()
    together.rows("run", "words", (1, 5), source)
    together.clear()
    assert together.rows("run", "words", (1, 5), source)["counts"] == 2
