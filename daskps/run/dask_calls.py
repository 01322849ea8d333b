"""Bounded calls to shards over Dask's own connections, from workers and from the driver.

An actor proxy inside a task waits for ever when the actor's worker dies. Here every call has a
timeout, and the news of a lost worker ends all calls to it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from distributed.core import ConnectionPool, send_recv
from distributed.protocol import to_serialize

from daskps.run.wire import lost, raised
from daskps.server.layout import ShardRef

HANDLER = "daskps"
"""Name of the worker handler that answers."""


def refusal(error: BaseException) -> dict[str, Any]:
    """Return an error as a message; nothing but strings, so that it can always be sent."""
    return {"status": "error", "kind": type(error).__name__, "text": str(error)}


class Line:
    """The way to the handlers of a worker, over connections that survive a call cut short.

    distributed loses a connection for good, and with it a socket, if whoever asked for it is
    cancelled while hands are shaken. Here the shaking ends by itself, and the next call has it.

    Parameters
    ----------
    pool
        Connections.
    address
        Of the worker.
    through
        Address of the scheduler if calls go through it; None goes straight to the worker.
    """

    def __init__(self, pool: ConnectionPool, address: str, through: str | None = None) -> None:
        self._pool = pool
        self._address = address
        self._through = through

    async def ask(self, handler: str, **message: Any) -> Any:
        """Return what a handler answers."""
        to, asked = self._address, {"op": handler, **message}
        if self._through is not None:
            to, asked = self._through, {"op": "proxy", "worker": self._address, "msg": asked}
        comm = await self._connected(to)
        try:
            return await send_recv(comm, **asked)
        finally:
            self._pool.reuse(to, comm)

    async def _connected(self, to: str) -> Any:
        connecting = asyncio.ensure_future(self._pool.connect(to))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(lambda done: self._give_back(to, done))
            raise

    def _give_back(self, to: str, done: asyncio.Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._pool.reuse(to, done.result())


class Caller:
    """Sends operations to shards; belongs to one event loop.

    Parameters
    ----------
    line
        Returns the way to the worker at an address.
    """

    def __init__(self, line: Callable[[str], Line]) -> None:
        self._line = line
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
        sent = self._line(ref.address).ask(
            HANDLER,
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
