"""Tasks that are done are let go of after the next ones were started."""

from __future__ import annotations

from typing import Any

from daskps.run.dask_tasks import Spent


class Held:
    """Stands for a future."""

    def __init__(self) -> None:
        self.released = False

    def release(self) -> None:
        self.released = True


def test_nothing_is_let_go_of_while_tasks_wait_to_be_started() -> None:
    spent, futures = Spent(), [Held(), Held()]
    given: list[Any] = [*futures, None]  # None: it had been abandoned
    spent.started()
    spent.rest(idle=True)  # tasks of this clock run
    for future in given:
        spent.add(future)
        spent.rest(idle=True)  # the clock is not over
    assert not any(f.released for f in futures)
    spent.started()
    spent.rest(idle=False)  # another is about to be started
    assert not any(f.released for f in futures)
    spent.started()
    spent.rest(idle=True)
    assert all(f.released for f in futures)


def test_at_the_end_all_are_let_go_of() -> None:
    spent, future = Spent(), Held()
    held: Any = future
    spent.add(held)
    spent.release()
    assert future.released
