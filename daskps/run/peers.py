"""Connections from the tasks of one process to the doors of others."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from daskps.run.parcels import unpack
from daskps.run.wire import Answer, Stream, lost, raised, request
from daskps.server.client import Call
from daskps.server.layout import Door, ShardRef
from daskps.server.messages import Ack, Ask, Blocks, Pull, Push, Seen

Note = Callable[[Call, Any, float], None]
"""Takes a call, its answer, and the seconds from sending the first of the calls to the answer."""


class Peers:
    """Sends messages through doors; connections are kept and used again.

    Parameters
    ----------
    tls
        Context for encrypted connections, or None.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._free: dict[Door, list[Stream]] = {}
        self._busy: dict[Stream, str] = {}
        self._doors: dict[str, set[Door]] = {}
        self._gone: set[Door] = set()

    def send(
        self, calls: Sequence[Call], timeout: float, note: Note | None = None
    ) -> Callable[[], list[Any]]:
        """Send messages; what is returned waits for their answers, and returns them in order.

        Parameters
        ----------
        calls
            Where to, what, and the rows' place.
        timeout
            Seconds.
        note
            Called with every answer as it comes.

        Raises
        ------
        ShardLost
            If a shard does not answer within `timeout` seconds of the sending, or its worker is
            gone; so does the wait.
        """
        start = time.monotonic()
        deadline = start + timeout
        streams: list[Stream] = []
        try:
            for ref, msg, out in calls:
                streams.append(self._take(ref, deadline))
                with _losses(ref):
                    streams[-1].send(*request(ref, msg, out))
        except BaseException:
            self._drop(streams)
            raise

        def wait() -> list[Any]:
            answers: list[Any] = [None] * len(calls)
            rest = dict(zip(streams, range(len(calls)), strict=True))
            try:
                while rest:
                    # one that is slow must neither keep the others waiting nor look like them
                    stream = _ready(list(rest), deadline)
                    number = rest[stream]
                    answers[number] = self._answer(stream, *calls[number])
                    if note is not None:
                        note(calls[number], answers[number], time.monotonic() - start)
                    del rest[stream]
                    self._give_back(calls[number][0], stream)
            finally:
                self._drop(list(rest))
            return answers

        return wait

    def lose(self, address: str) -> None:
        """End what waits for the worker at `address`; its later lives have other doors."""
        with self._lock:
            doors = self._doors.pop(address, set())
            self._gone |= doors
            idle = [s for door in doors for s in self._free.pop(door, [])]
            for stream, where in self._busy.items():
                if where == address:
                    stream.shutdown()
        self._drop(idle)

    def rest(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle = [s for streams in self._free.values() for s in streams]
            self._free.clear()
        self._drop(idle)

    # -- connections -------------------------------------------------------------------------

    def _take(self, ref: ShardRef, deadline: float) -> Stream:
        door = ref.door
        assert door is not None, ref
        with self._lock:
            if door in self._gone:
                raise lost(ref, "its worker is gone")
            self._doors.setdefault(ref.address, set()).add(door)
            idle = self._free.get(door)
            stream = idle.pop() if idle else None
        if stream is None:
            with _losses(ref):
                stream = self._connect(door, deadline)
        stream.deadline = deadline
        with self._lock:
            self._busy[stream] = ref.address
            gone = door in self._gone
        if gone:
            self._drop([stream])
            raise lost(ref, "its worker is gone")
        return stream

    def _connect(self, door: Door, deadline: float) -> Stream:
        rest = max(deadline - time.monotonic(), 0.001)
        sock = socket.create_connection((door.host, door.port), timeout=rest)
        try:
            stream = Stream(self._tls.wrap_socket(sock) if self._tls else sock)
            stream.deadline = deadline
            stream.greet(door.token)
        except BaseException:
            sock.close()
            raise
        return stream

    def _give_back(self, ref: ShardRef, stream: Stream) -> None:
        with self._lock:
            del self._busy[stream]
            if ref.door is not None and ref.door not in self._gone:
                self._free.setdefault(ref.door, []).append(stream)
                return
        stream.close()

    def _drop(self, streams: Sequence[Stream]) -> None:
        with self._lock:
            for stream in streams:
                self._busy.pop(stream, None)
        for stream in streams:
            stream.close()

    def _answer(self, stream: Stream, ref: ShardRef, msg: Pull | Push | Ask, out: Blocks) -> Any:
        with _losses(ref):
            answer, size = stream.receive(Answer)
            if answer.parcels is not None:
                arrays = unpack(answer.parcels, size)
                stream.into(arrays.values())
                return arrays
            rows = () if answer.error else out
            if size != sum(x.nbytes for x in rows):
                raise ValueError(f"{size} bytes of rows came with {answer}")
            stream.into(rows)
        if answer.error:
            raise raised(answer.error, answer.text, ref)
        if isinstance(msg, Ask):
            return msg.arrays if answer.applied else None
        if isinstance(msg, Push):
            return Ack(answer.applied)
        return Seen(answer.samples, answer.clocks)


def _ready(streams: Sequence[Stream], deadline: float) -> Stream:
    """Return a stream on which an answer has begun to come; the first if none does in time."""
    if len(streams) == 1:
        return streams[0]
    found = select.poll()
    for stream in streams:
        found.register(stream.fileno(), select.POLLIN)
    rest = max(deadline - time.monotonic(), 0.0)
    come = {number for number, _ in found.poll(1e3 * rest)}
    return next((s for s in streams if s.fileno() in come), streams[0])


@contextmanager
def _losses(ref: ShardRef) -> Iterator[None]:
    """Turn what sockets raise into `ShardLost`."""
    try:
        yield
    except TimeoutError as error:
        raise lost(ref, "no answer in time") from error
    except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
        raise lost(ref, f"{type(error).__name__}: {error}") from error
