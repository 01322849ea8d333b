"""Pace: a worker that is slow beside the others is found, spared, and taken back."""

from __future__ import annotations

from daskps.run.pace import CHANCE, MEMORY, Pace


def paced(n_partitions: int = 24, **seconds: float) -> Pace:
    pace = Pace(n_partitions)
    for worker in seconds:
        pace.joined(worker)
    for _ in range(3):
        for worker, took in seconds.items():
            pace.took(worker, took)
    return pace


def test_nobody_is_slow_among_equals_and_tasks_may_go_anywhere() -> None:
    pace = paced(a=1.0, b=1.2, c=0.9)
    assert pace.slow == []
    assert pace.give(1) == []


def test_a_slow_worker_gets_one_task_at_a_time() -> None:
    pace = paced(a=1.0, b=5.0, c=1.0, d=1.1)
    assert pace.slow == ["b"]
    assert pace.give(1) == ["b"]
    assert pace.give(2) == ["a", "c", "d"]
    assert pace.give(3) == ["a", "c", "d"]
    pace.ended(1)
    assert pace.give(4) == ["b"]


def test_a_worker_that_is_too_slow_for_a_clock_gets_a_task_now_and_then() -> None:
    pace = paced(6, a=1.0, b=5.0, c=1.0, d=1.0)  # the others do two tasks each, in 2 s
    given = [pace.give(token) for token in range(CHANCE + 1)]
    assert given == [["a", "c", "d"]] * CHANCE + [["b"]]


def test_a_worker_that_is_as_fast_again_is_taken_back() -> None:
    pace = paced(a=1.0, b=5.0, c=1.0)
    for _ in range(MEMORY):
        pace.took("b", 1.0)
    assert pace.slow == []


def test_a_worker_that_left_gets_nothing_and_one_that_joined_does() -> None:
    pace = paced(a=1.0, b=5.0, c=1.0)
    pace.left("c")
    pace.joined("e")
    pace.give(1)
    assert pace.give(2) == ["a", "e"]
    pace.left("b")
    assert pace.give(3) == []
    pace.took("c", 1.0)  # news that comes after that of its end
    pace.took("b", 5.0)
    assert pace.give(4) == []
    for _ in range(9):
        pace.took("e", 9.0)
    pace.give(5)
    assert pace.give(6) == ["a"]


def test_of_two_workers_the_faster_sets_the_pace() -> None:
    assert paced(a=1.0, b=5.0).slow == ["b"]


def test_short_tasks_say_little() -> None:
    assert paced(a=0.01, b=0.2, c=0.01).slow == []


def test_a_worker_is_not_judged_by_a_task_that_was_held_up_once() -> None:
    """Its first one loads what was compiled; and any one may be late by chance."""
    pace = Pace(24)
    for worker in "abc":
        pace.joined(worker)
        for _ in range(3):
            pace.took(worker, 1.0)
    pace.joined("new")
    for seconds in (5.0, 1.0, 1.0, 1.0):
        pace.took("new", seconds)
        assert pace.slow == []
    for _ in range(3):
        pace.took("new", 5.0)
        pace.took("a", 1.0)
    assert pace.slow == ["new"]
