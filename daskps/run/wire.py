"""Pulls and pushes on a stream: a short header, then arrays as they lie in memory.

Owns the frames and their bounds. Knows sockets, plain or TLS, but not who is at the other end.
Rows are sent from and received into the places where they belong, so a byte is copied by the
kernel only.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from daskps import errors
from daskps.run.parcels import Parcel, pack
from daskps.server.layout import ShardRef
from daskps.server.messages import Ask, Blocks, Pull, Push, Want

_PREFIX = struct.Struct("<IQ")
"""Bytes of the header, bytes of the arrays behind it."""
_MAX_HEADER = 2**26
_VECTOR = 512
"""Pieces that one call moves; systems allow 1,024."""
_ATOMS = {"": None, "uint32": np.dtype(np.uint32), "uint64": np.dtype(np.uint64)}


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """Header of a want."""

    table: str
    first: int
    stop: int
    n_rows: int
    sizes: list[int] | None
    at: str
    """Type of the positions; empty for all rows."""


class Request(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Header of a pull or push; behind it the positions of each want, then the deltas."""

    shard: int
    incarnation: int
    key: str
    push: bool
    generation: int
    partition: int
    clock: int
    samples: float
    wants: list[Wanted]
    order: int = 0


class Inquiry(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Header of a question; behind it the arrays that it hands over."""

    shard: int
    incarnation: int
    key: str
    generation: int
    partition: int
    clock: int
    what: Literal["state", "keep", "rows", "histogram", "move"]
    parcels: list[Parcel]
    table: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Header of an answer; behind that to a pull its rows, behind that to a question its arrays."""

    error: str = ""
    """Name of the class of an error."""
    text: str = ""
    samples: float = 0.0
    clocks: bytes = b""
    applied: bool = False
    parcels: list[Parcel] | None = None


_DECODERS = {kind: msgspec.msgpack.Decoder(kind) for kind in (Answer, Request | Inquiry)}
"""Made here because threads that decode the first of a kind together end the process."""


class Stream:
    """One connection; used by one thread at a time.

    Parameters
    ----------
    sock
        Connected socket, plain or TLS.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._secure = isinstance(sock, ssl.SSLSocket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # of peers that were cut off
        self.deadline: float | None = None
        """Monotonic time at which waits end with TimeoutError; None waits for ever."""

    def greet(self, token: str) -> None:
        """Show the token."""
        self._bound()
        self._sock.sendall(token.encode())

    def greeting(self, n: int) -> bytes:
        """Return the token that the other side shows, of `n` bytes."""
        token = bytearray(n)
        self._fill(memoryview(token))
        return bytes(token)

    def send(self, header: msgspec.Struct, arrays: Iterable[NDArray[Any]] = ()) -> None:
        """Send a frame; the arrays may be changed afterwards."""
        body = [_bytes_of(a) for a in arrays if a.size]
        head = msgspec.msgpack.encode(header)
        first = _PREFIX.pack(len(head), sum(map(len, body))) + head
        self._all([memoryview(first), *body], self._put)

    def receive(self, kind: Any) -> tuple[Any, int]:
        """Return a header of this kind, and the bytes that stand behind it.

        Raises
        ------
        EOFError
            If the connection was closed.
        ValueError
            If what comes is no frame.
        """
        prefix = memoryview(bytearray(_PREFIX.size))
        self._fill(prefix)
        n, size = _PREFIX.unpack(prefix)
        if n > _MAX_HEADER:
            raise ValueError(f"a header of {n} bytes came; expected at most {_MAX_HEADER}.")
        head = memoryview(bytearray(n))
        self._fill(head)
        return _DECODERS[kind].decode(head), size

    def into(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Receive the bytes of C-contiguous arrays."""
        self._all([_bytes_of(a) for a in arrays if a.size], self._take)

    def skip(self, size: int) -> None:
        """Receive `size` bytes and forget them."""
        waste = memoryview(bytearray(min(size, 2**20)))
        while size:
            part = waste[: min(size, len(waste))]
            self._fill(part)
            size -= len(part)

    def _fill(self, view: memoryview) -> None:
        self._all([view], self._take)

    def _all(self, views: list[memoryview], move: Callable[[list[memoryview]], int]) -> None:
        """Move the bytes of all views, many of them in one call of the system."""
        at = 0
        while at < len(views):
            self._bound()
            n = move(views[at : at + _VECTOR])
            if not n:
                raise EOFError("the connection was closed")
            while at < len(views) and n >= len(views[at]):
                n -= len(views[at])
                at += 1
            if n:
                views[at] = views[at][n:]

    def _take(self, views: list[memoryview]) -> int:
        if self._secure:  # TLS has no calls for several pieces
            return self._sock.recv_into(views[0])
        return self._sock.recvmsg_into(views)[0]

    def _put(self, views: list[memoryview]) -> int:
        return self._sock.send(views[0]) if self._secure else self._sock.sendmsg(views)

    def _bound(self) -> None:
        if self.deadline is None:
            self._sock.settimeout(None)
            return
        rest = self.deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError("out of time")
        self._sock.settimeout(rest)

    def fileno(self) -> int:
        """Return the number that the system knows it by."""
        return self._sock.fileno()

    def shutdown(self) -> None:
        """End all waits of other threads on this connection."""
        with contextlib.suppress(OSError):  # it was not connected any more
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def request(
    ref: ShardRef, msg: Pull | Push | Ask, out: Blocks
) -> tuple[Request | Inquiry, list[NDArray[Any]]]:
    """Return the frame of a message to the shard `ref`; `out` gives the sizes of a pull."""
    if isinstance(msg, Ask):
        parcels, arrays = pack(msg.arrays)
        whose = (msg.generation, msg.partition, msg.clock, msg.what)
        return Inquiry(ref.shard, ref.incarnation, ref.key, *whose, parcels, msg.table), arrays
    blocks = msg.deltas if isinstance(msg, Push) else out
    header = Request(
        *(ref.shard, ref.incarnation, ref.key, isinstance(msg, Push)),
        *(msg.generation, msg.partition, msg.clock),
        msg.samples if isinstance(msg, Push) else 0.0,
        [_wanted(w, len(rows)) for w, rows in zip(msg.wants, blocks, strict=True)],
        msg.order if isinstance(msg, Push) else 0,
    )
    arrays = [w.at for w in msg.wants if w.at is not None]
    return header, [*arrays, *blocks] if isinstance(msg, Push) else arrays


def _wanted(want: Want, n_rows: int) -> Wanted:
    sizes = None if want.sizes is None else list(want.sizes)
    kind = "" if want.at is None else want.at.dtype.name
    return Wanted(want.table, want.first, want.stop, n_rows, sizes, kind)


def raised(kind: str, text: str, ref: ShardRef) -> BaseException:
    """Return the error that the worker of a shard sent as strings."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, errors.DaskpsError):
        return found(text)
    return errors.RunFailed(f"shard {ref.shard} on {ref.address} failed with {kind}: {text}")


def lost(ref: ShardRef, why: str) -> errors.ShardLost:
    """Return the error of a shard that does not answer."""
    return errors.ShardLost(
        f"shard {ref.shard} incarnation {ref.incarnation} on {ref.address} was lost: {why}."
    )


def wants_of(header: Request, take: Any) -> tuple[tuple[Want, ...], list[NDArray[Any]]]:
    """Return the wants of a request, and the arrays that their positions must be received into.

    Parameters
    ----------
    take
        Returns memory for a purpose, a shape and a dtype.
    """
    wants, arrays = [], []
    for i, w in enumerate(header.wants):
        dtype = _ATOMS[w.at]
        at = None if dtype is None else take(f"at {i}", (w.n_rows,), dtype)
        wants.append(Want(w.table, w.first, w.stop, w.sizes, at))
        if at is not None:
            arrays.append(at)
    return tuple(wants), arrays


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.data.cast("B")
