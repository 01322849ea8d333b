"""Structs that threads read: what msgspec must know of them, it knows when they are defined."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def known(kind: type[T]) -> type[T]:
    """Let msgspec look at a class now, and return it.

    msgspec looks at the types of a struct's fields when the first is decoded or converted. A second
    thread that comes meanwhile finds them half written, and the process dies (seen with 0.22).
    """
    msgspec.msgpack.Decoder(kind)
    return kind
