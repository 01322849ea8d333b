"""Where pulls and pushes come in: a socket of its own on every worker, a thread a connection.

Dask's comms move 0.3 to 0.7 GB/s and share their event loop with everything else; a blocking
socket moves as much as memory does. Dask's TLS settings hold here too, and whoever connects must
first show the door's token, which only the run's driver and its tasks were told.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from numpy.typing import NDArray

from daskps.run.parcels import pack, unpack
from daskps.run.wire import Answer, Inquiry, Request, Stream, wants_of
from daskps.server.buffers import Buffers
from daskps.server.layout import Door
from daskps.server.messages import Ask, Pull, Push
from daskps.server.shard import Shard

TOKEN = 32
"""Characters of a token."""
HELLO = 10.0
"""Seconds in which a new connection must show the token."""
MESSAGE = 60.0
"""Seconds in which a message that has begun must be over; who sent it waits less."""


class DoorKeeper:
    """Listens, and answers pulls and pushes to the shards of this process.

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on; 0 lets the system choose.
    find
        Returns the shard of a number, incarnation and key, or raises `ShardLost`.
    tls
        Context for encrypted connections, or None.
    """

    def __init__(
        self,
        host: str,
        port: int,
        find: Callable[[int, int, str], Shard],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._find = find
        self._tls = tls
        self._buffers = Buffers()
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._open = True
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self.door = Door(host, self._listener.getsockname()[1], secrets.token_hex(TOKEN // 2))
        self._accepting = self._thread(self._accept)

    def close(self) -> None:
        """End all connections and threads."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            streams = list(self._streams)
        # close() alone does not wake a thread that is in accept()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in streams:
            stream.shutdown()
        self._accepting.join(HELLO)

    def free(self) -> None:
        """Let go of scratch memory."""
        self._buffers.clear()

    def _thread(self, work: Callable[..., None], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, name="daskps-door", daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while self._open:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._thread(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                sock.settimeout(HELLO)
                secure = self._tls.wrap_socket(sock, server_side=True) if self._tls else sock
                with secure:
                    self._answer_all(Stream(secure))
            except (OSError, EOFError, ValueError, msgspec.MsgspecError):
                return  # whoever it was is gone, or is none of ours

    def _answer_all(self, stream: Stream) -> None:
        with self._lock:
            if not self._open:
                return
            self._streams.add(stream)
        try:
            stream.deadline = time.monotonic() + HELLO
            if not hmac.compare_digest(stream.greeting(TOKEN), self.door.token.encode()):
                return
            while True:
                self._answer(stream)
        finally:
            self._buffers.forget()
            with self._lock:
                self._streams.discard(stream)

    def _answer(self, stream: Stream) -> None:
        stream.deadline = None  # a connection may rest between messages, not inside one
        header, size = stream.receive(Request | Inquiry)
        stream.deadline = time.monotonic() + MESSAGE
        try:
            shard = self._find(header.shard, header.incarnation, header.key)
            body: _Body | _Question
            if isinstance(header, Inquiry):
                body = _Question(shard, header, size)
            else:
                body = _Body(shard, header, self._buffers.take)
            if sum(a.nbytes for a in body.arrays) != size:
                raise ValueError(f"{size} bytes came with {header}, which names others.")
        except Exception as error:
            stream.skip(size)
            stream.send(Answer(type(error).__name__, str(error)))
            return
        stream.into(body.arrays)
        try:
            answer, rows = body.deliver()
        except Exception as error:
            answer, rows = Answer(type(error).__name__, str(error)), []
        stream.send(answer, rows)


class _Body:
    """A request whose arrays are still to be received, and what it asks of the shard."""

    def __init__(self, shard: Shard, header: Request, take: Callable[..., NDArray[Any]]) -> None:
        self._shard, self._header = shard, header
        self._wants, self.arrays = wants_of(header, take)
        specs = {t.name: t for t in shard.spec.tables}
        self._rows = []
        for i, want in enumerate(header.wants):
            u, width = specs[want.table].updater, specs[want.table].width
            fields = u.n_push if header.push else u.n_pull
            dtype = u.push_dtype if header.push else u.dtype
            self._rows.append(take(f"rows {i}", (want.n_rows, fields, width), dtype))
        if header.push:
            self.arrays += self._rows

    def deliver(self) -> tuple[Answer, list[NDArray[Any]]]:
        """Return the shard's answer, and the rows that go with it."""
        h = self._header
        if h.push:
            what = (h.generation, h.partition, h.clock, h.samples, self._wants, self._rows)
            push = Push(*what, h.order)
            return Answer(applied=self._shard.push(push).applied), []
        pull = Pull(h.generation, h.partition, h.clock, self._wants)
        seen = self._shard.pull(pull, self._rows)
        return Answer(samples=seen.samples, clocks=seen.clocks), self._rows


class _Question:
    """A question whose arrays are still to be received, and what it asks of the shard."""

    def __init__(self, shard: Shard, header: Inquiry, size: int) -> None:
        self._shard, self._header = shard, header
        self._named = unpack(header.parcels, size)  # the shard keeps them: no scratch memory
        self.arrays = list(self._named.values())

    def deliver(self) -> tuple[Answer, list[NDArray[Any]]]:
        """Return the shard's answer, and the arrays that go with it."""
        h = self._header
        ask = Ask(h.generation, h.partition, h.clock, h.what, self._named, h.table)
        found = self._shard.ask(ask)
        if found is None or found is self._named:  # what has just come need not go back
            return Answer(applied=found is not None), []
        parcels, arrays = pack(found)
        return Answer(parcels=parcels), arrays
