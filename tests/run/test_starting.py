"""Tasks that are to be started go to the scheduler in as few messages as can be."""

from __future__ import annotations

from typing import Any

from daskps.run import events as ev
from daskps.run.dask_tasks import Starting


class Recorder:
    """Stands for a client: keeps what is mapped, and returns the keys as futures."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[tuple[Any, ...]], dict[str, Any]]] = []

    def map(self, function: Any, *columns: Any, key: Any, pure: bool, **where: Any) -> Any:
        assert not pure
        self.messages.append((list(zip(*columns, strict=True)), where))
        return key


class Planned:
    run = "r"


def submit(starting: Starting) -> tuple[list[tuple[int, Any]], Recorder]:
    client, data = Recorder(), ["data 0", "data 1", "data 2"]
    given: Any = client, Planned, "layout", data
    return list(starting.submit(*given)), client


def test_tasks_that_may_run_at_the_same_places_go_in_one_message_in_their_order() -> None:
    starting, spared = Starting(), {"workers": ["a"], "allow_other_workers": True}
    for token, partition, where in [(1, 2, {}), (2, 0, {}), (3, 1, spared), (4, 1, {})]:
        starting.add(ev.Launch(token, partition, 5), where)
    started, client = submit(starting)
    assert [token for token, _ in started] == [1, 2, 3, 4]
    assert [where for _, where in client.messages] == [{}, spared, {}]
    first = client.messages[0][0]
    assert first == [("data 2", Planned, 1, 2, 5, "layout"), ("data 0", Planned, 2, 0, 5, "layout")]
    keys = [key for _, key in started]
    assert len(set(keys)) == 4
    # a group of its own for each: Dask deals the tasks of large groups to whoever is idle
    assert len({key[0] for key in keys}) == 4


def test_what_was_started_is_not_started_again() -> None:
    starting = Starting()
    starting.add(ev.Launch(1, 0, 0), {})
    assert [token for token, _ in submit(starting)[0]] == [1]
    again, client = submit(starting)
    assert again == []
    assert client.messages == []
