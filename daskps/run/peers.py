"""Connections from the tasks of one process to the doors of others."""

from __future__ import annotations

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
from daskps.server.messages import Ack, Ask, Blocks, Pull, Push


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
        self._waits: dict[str, tuple[int, float]] = {}

    def waits(self) -> dict[str, tuple[int, float]]:
        """Return by worker how many answers came since the last call, and their seconds in all.

        The time of an answer begins when its message is sent.
        """
        with self._lock:
            found, self._waits = self._waits, {}
        return found

    def send(self, calls: Sequence[Call], timeout: float) -> Callable[[], list[Any]]:
        """Send messages; what is returned waits for their answers, in order.

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
            answers = []
            try:
                for call in calls:
                    answers.append(self._answer(streams[0], *call))
                    self._note(call[0].address, time.monotonic() - start)
                    self._give_back(call[0], streams.pop(0))
            finally:
                self._drop(streams)
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

    def _note(self, address: str, seconds: float) -> None:
        with self._lock:
            n, total = self._waits.get(address, (0, 0.0))
            self._waits[address] = (n + 1, total + seconds)

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
        return Ack(answer.applied) if isinstance(msg, Push) else answer.samples


@contextmanager
def _losses(ref: ShardRef) -> Iterator[None]:
    """Turn what sockets raise into `ShardLost`."""
    try:
        yield
    except TimeoutError as error:
        raise lost(ref, "no answer in time") from error
    except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
        raise lost(ref, f"{type(error).__name__}: {error}") from error
