"""Labels: numbers as they are, anything else as codes into sorted classes.

Owns encoding, counting and merging over pieces. Does not know what a model makes of labels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning

from daskps.errors import DataError

MAX_COUNTED = 10_000
Classes = list[str | bool] | None


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of the labels of a piece or of the whole data."""

    classes: Classes
    values: NDArray[np.float64] | None
    """Distinct labels or codes, ascending; None with more than 10,000."""
    counts: NDArray[np.int64] | None
    """Rows per entry of `values`."""


def encode(y: Any, n_rows: int, where: str) -> tuple[NDArray[np.float64], Classes]:
    """Return labels as float64 numbers or codes, and the classes of the codes.

    Parameters
    ----------
    y
        Numbers, strings or booleans, shape (n_rows,); (n_rows, 1) with a warning.
    n_rows
        Rows of the matrix that `y` belongs to.
    where
        The place for error messages.

    Raises
    ------
    DataError
        If the length, the kind or a value is wrong.
    """
    array = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; use y.ravel().",
            DataConversionWarning,
            stacklevel=2,
        )
        array = array.ravel()
    if array.ndim != 1:
        raise DataError(
            f"y has shape {array.shape!r}{where}, expected one label per row; use y.ravel()."
        )
    if len(array) != n_rows:
        raise DataError(
            f"y has {len(array)!r} labels but X has {n_rows!r} rows{where}; give one label a row."
        )
    if array.dtype.kind in "iuf":
        return _numbers(array, where), None
    return _codes(array, where)


def _numbers(array: NDArray[Any], where: str) -> NDArray[np.float64]:
    numbers = array.astype(np.float64)
    if array.dtype.kind in "iu" and len(array) and np.abs(numbers).max() >= 2**53:
        raise DataError(
            f"label {array[np.abs(numbers).argmax()].item()!r}{where} is too large to be kept as a "
            "float64 number, expected less than 2**53; use y.astype(str) if labels are ids."
        )
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise DataError(
            f"label {numbers[bad[0]].item()!r} of row {int(bad[0])}{where} is not a finite number; "
            "remove rows without a label."
        )
    return numbers


def _codes(array: NDArray[Any], where: str) -> tuple[NDArray[np.float64], Classes]:
    objects = array.astype(object)
    # x != x holds for NaN, NaT; pandas.NA has no truth value, so it is found by name.
    missing = [x is None or type(x).__name__ == "NAType" or x != x for x in objects]
    if any(missing):
        row = missing.index(True)
        raise DataError(
            f"label {objects[row]!r} of row {row}{where} is missing; remove rows without a label."
        )
    kinds = {_kind(x) for x in objects}
    if kinds <= {"number"}:
        return _numbers(array.astype(np.float64), where), None
    if len(kinds) != 1 or "other" in kinds:
        found = sorted({type(x).__name__ for x in objects})
        raise DataError(
            f"labels are of types {found!r}{where}, expected only numbers, only strings or only "
            "booleans; convert them, for example with y.astype(str)."
        )
    plain: NDArray[Any] = objects.astype(bool if kinds == {"bool"} else str)
    classes, codes = np.unique(plain, return_inverse=True)
    if len(classes) > MAX_COUNTED:
        raise DataError(
            f"y has {len(classes)!r} distinct strings{where}, at most {MAX_COUNTED} classes are "
            "supported; pass numbers for regression."
        )
    return codes.astype(np.float64), classes.tolist()


def _kind(x: Any) -> str:
    if isinstance(x, (bool, np.bool_)):
        return "bool"
    if isinstance(x, str):
        return "str"
    return "number" if isinstance(x, (int, float, np.integer, np.floating)) else "other"


def count(label: NDArray[np.float64], classes: Classes) -> Labels:
    """Count the distinct values of `label`."""
    values, counts = np.unique(label, return_counts=True)
    if len(values) > MAX_COUNTED:
        return Labels(classes, None, None)
    return Labels(classes, values, counts)


def merge(pieces: list[Labels]) -> tuple[Labels, list[NDArray[np.float64] | None]]:
    """Merge pieces; return the whole and, per piece, its codes' new codes (None: unchanged).

    Raises
    ------
    DataError
        If some pieces have numbers and others strings or booleans.
    """
    kinds = {None if p.classes is None else type(p.classes[0]).__name__ for p in pieces}
    if len(kinds) > 1:
        raise DataError(
            f"labels are of different kinds in different blocks ({sorted(map(str, kinds))!r}); "
            "convert y to one kind."
        )
    if kinds == {None}:
        return _sum(None, pieces, [None] * len(pieces)), [None] * len(pieces)
    classes = np.unique(np.concatenate([np.array(p.classes) for p in pieces]))
    if len(classes) > MAX_COUNTED:
        raise DataError(
            f"y has {len(classes)!r} distinct strings, at most {MAX_COUNTED} classes are "
            "supported; pass numbers for regression."
        )
    maps = [np.searchsorted(classes, np.array(p.classes)).astype(np.float64) for p in pieces]
    return _sum(classes.tolist(), pieces, list(maps)), list(maps)


def _sum(classes: Classes, pieces: list[Labels], maps: list[NDArray[np.float64] | None]) -> Labels:
    values: list[NDArray[np.float64]] = []
    counts: list[NDArray[np.int64]] = []
    for piece, codes in zip(pieces, maps, strict=True):
        if piece.values is None or piece.counts is None:
            return Labels(classes, None, None)
        values.append(piece.values if codes is None else codes[piece.values.astype(np.int64)])
        counts.append(piece.counts)
    distinct, position = np.unique(np.concatenate(values), return_inverse=True)
    if len(distinct) > MAX_COUNTED:
        return Labels(classes, None, None)
    total = np.bincount(position, np.concatenate(counts), len(distinct)).astype(np.int64)
    return Labels(classes, distinct, total)
