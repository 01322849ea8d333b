"""Bounded calls to shards over Dask's own connections, from workers and from the driver.

An actor proxy inside a task waits for ever when the actor's worker dies. Here every call has a
timeout, and the news of a lost worker ends all calls to it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Future
from distributed.protocol import to_serialize

from daskps.run.wire import lost, raised
from daskps.server.layout import ShardRef

HANDLER = "daskps"
"""Name of the worker handler that answers."""


def refusal(error: BaseException) -> dict[str, Any]:
    """Return an error as a message; nothing but strings, so that it can always be sent."""
    return {"status": "error", "kind": type(error).__name__, "text": str(error)}


class Spent:
    """Tasks that are done, let go of after the next ones have been started.

    Dask sends the first message after a pause at once and gathers those of the next milliseconds
    (`daskps.run.dask_hub.SOON`): a task whose forerunner is released first starts that much later.
    """

    def __init__(self) -> None:
        self._futures: list[Future[Any]] = []
        self._started = False

    def add(self, future: Future[Any] | None) -> None:
        """Take a future that nobody needs, if there is one."""
        if future is not None:
            self._futures.append(future)

    def started(self) -> None:
        """Note that a task was started."""
        self._started = True

    def rest(self, *, idle: bool) -> None:
        """Let go of all if tasks were started since the last time, and nothing is to be done."""
        if self._started and idle:
            self._started = False
            self.release()

    def release(self) -> None:
        """Let go of all."""
        for future in self._futures:
            future.release()
        self._futures.clear()


class Caller:
    """Sends operations to shards; belongs to one event loop.

    Parameters
    ----------
    rpc
        Returns an object with a coroutine method for each handler of the worker at an address.
    """

    def __init__(self, rpc: Callable[[str], Any]) -> None:
        self._rpc = rpc
        self._known: dict[str, set[str]] = {}
        self._gone: set[str] = set()
        self._open: dict[asyncio.Future[Any], ShardRef] = {}

    async def call(self, ref: ShardRef, operation: str, message: Any, timeout: float) -> Any:
        """Return the answer of a shard.

        Raises
        ------
        ShardLost
            If it does not answer within `timeout` seconds, or its worker is gone.
        """
        if ref.key in self._gone:
            raise lost(ref, "its worker is gone")
        self._known.setdefault(ref.address, set()).add(ref.key)
        sent = self._rpc(ref.address).daskps(
            shard=ref.shard,
            incarnation=ref.incarnation,
            key=ref.key,
            operation=operation,
            message=to_serialize(message),
        )
        future = asyncio.ensure_future(sent)
        self._open[future] = ref
        try:
            answer = await asyncio.wait_for(future, timeout)
        except TimeoutError as error:
            raise lost(ref, f"no answer to {operation!r} within {timeout:g} s") from error
        except OSError as error:
            raise lost(ref, f"{type(error).__name__} during {operation!r}") from error
        except asyncio.CancelledError as error:
            if ref.key not in self._gone:
                raise
            raise lost(ref, f"its worker went during {operation!r}") from error
        finally:
            self._open.pop(future, None)
        if answer["status"] != "OK":
            raise raised(answer["kind"], answer["text"], ref)
        return answer["result"]

    async def call_all(
        self, calls: Sequence[tuple[ShardRef, str, Any]], timeout: float
    ) -> list[Any]:
        """Return answers or errors of calls that run at once, in order."""
        pending = (self.call(ref, operation, message, timeout) for ref, operation, message in calls)
        return await asyncio.gather(*pending, return_exceptions=True)

    def lose(self, address: str) -> None:
        """End what waits for the worker at `address`; later lives of it have other keys."""
        self._gone |= self._known.pop(address, set())
        for future, ref in list(self._open.items()):
            if ref.address == address:
                future.cancel()
