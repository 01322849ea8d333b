"""Named arrays of any shape on a stream: what is written before them, and room to receive them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_KINDS = "biuf"


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """What the receiver must know of an array before it comes."""

    name: str
    dtype: str
    shape: list[int]


def pack(arrays: Mapping[str, NDArray[Any]]) -> tuple[list[Parcel], list[NDArray[Any]]]:
    """Return what to announce, and the arrays to send."""
    whole = [np.ascontiguousarray(a).reshape(a.shape) for a in arrays.values()]
    parcels = [Parcel(n, a.dtype.str, list(a.shape)) for n, a in zip(arrays, whole, strict=True)]
    return parcels, whole


def unpack(parcels: Sequence[Parcel], size: int) -> dict[str, NDArray[Any]]:
    """Return memory for what was announced, of its own: the receiver may keep it.

    Parameters
    ----------
    parcels
        As they came.
    size
        Bytes that stand behind the header.

    Raises
    ------
    ValueError
        If the parcels are not of numbers, or of another size.
    """
    dtypes = [np.dtype(p.dtype) for p in parcels]
    if any(d.kind not in _KINDS for d in dtypes) or any(n < 0 for p in parcels for n in p.shape):
        raise ValueError(f"{parcels} came; expected arrays of numbers.")
    sizes = [d.itemsize * math.prod(p.shape) for d, p in zip(dtypes, parcels, strict=True)]
    if sum(sizes) != size:
        raise ValueError(f"{size} bytes came with {parcels}, which take {sum(sizes)}.")
    return {p.name: np.empty(p.shape, d) for p, d in zip(parcels, dtypes, strict=True)}
