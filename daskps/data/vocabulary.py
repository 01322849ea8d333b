"""Vocabularies: what the numbers of users and items stand for; ids of any hashable type.

A vocabulary is a `pandas.Index` without repetition; position is the number. Owns look-up, joining,
and the form in which ids stand beside a dataset or a model: an array of numbers or strings, and
for anything else of JSON's kinds, tuples too, its text. Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from daskps.data.format import array_of
from daskps.errors import DataError, DataTypeError

Vocabulary = Any
"""A `pandas.Index`."""


def numbers(n: int) -> Vocabulary:
    """Return the vocabulary of a matrix: rows or columns stand for themselves."""
    return pd.RangeIndex(n)


def of(ids: Any) -> Vocabulary:
    """Return `ids`, in their order and with their repetitions, as an index."""
    if isinstance(ids, pd.Index) and not isinstance(ids, pd.MultiIndex):
        return ids
    if isinstance(ids, (pd.Series, np.ndarray)):
        return pd.Index(ids, tupleize_cols=False)
    listed = list(ids)
    if any(isinstance(x, tuple) for x in listed):  # which numpy would take as another dimension
        array = np.empty(len(listed), object)
        array[:] = listed
        return pd.Index(array, tupleize_cols=False)
    return pd.Index(listed, tupleize_cols=False)


def union(parts: Sequence[Vocabulary], what: str) -> Vocabulary:
    """Return all ids that occur in `parts`, ascending where they have an order.

    Raises
    ------
    DataTypeError
        If an id is not hashable.
    """
    if any(part.dtype == object for part in parts):
        parts = [part.astype(object) for part in parts]
    joined = parts[0].append(list(parts[1:])) if len(parts) > 1 else parts[0]
    try:
        found = joined.unique()
        if found.dtype == object:
            set(found)  # pandas would take what has no hash
    except TypeError as error:
        raise DataTypeError(
            f"{what} ids cannot be told apart ({error}); expected hashable ones: numbers, strings, "
            "dates or tuples of those."
        ) from error
    try:
        return found.sort_values()
    except TypeError:  # of several types: they stand in the order in which they came
        return found


def codes(vocabulary: Vocabulary, ids: Any) -> NDArray[np.int64]:
    """Return the number of each id, -1 for those that are unknown."""
    wanted = of(ids)
    if isinstance(vocabulary, pd.RangeIndex) and wanted.dtype.kind not in "iuf":
        wanted = wanted.astype(object)
    found: NDArray[np.int64] = np.asarray(vocabulary.get_indexer(wanted), np.int64)
    return found


def write(group: zarr.Group, name: str, vocabulary: Vocabulary, dim: str) -> str:
    """Write ids as an array of `group`; return the kind, which `read` wants to know.

    Raises
    ------
    DataTypeError
        If an id has no form that another program could read.
    """
    if isinstance(vocabulary, pd.RangeIndex):
        return f"range:{len(vocabulary)}"
    kind, data = _plain(vocabulary, name)
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=(max(1, min(len(data), 2**20)),),
        dtype="str" if kind in ("str", "json") else data.dtype,
        dimension_names=(dim,),
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )
    array[...] = data
    return kind


def read(group: zarr.Group, name: str, kind: str) -> Vocabulary:
    """Return the ids that `write` wrote."""
    if kind.startswith("range:"):
        return numbers(int(kind.partition(":")[2]))
    raw = np.asarray(array_of(group, name)[...])
    if kind == "str":
        return of(np.array(raw.tolist(), object))
    if kind == "json":
        return of(_tuples(msgspec.json.decode(text)) for text in raw.tolist())
    return of(raw.view(kind) if kind.startswith("datetime64") else raw)


def _plain(vocabulary: Vocabulary, name: str) -> tuple[str, NDArray[Any]]:
    dtype = vocabulary.dtype
    values = vocabulary.to_numpy()
    if isinstance(dtype, np.dtype) and dtype.kind in "iufb":
        return "number", values
    if isinstance(dtype, np.dtype) and dtype.kind == "M":
        return str(dtype), values.view(np.int64)
    if all(isinstance(x, str) for x in values):
        return "str", values.astype(object)
    texts = [msgspec.json.encode(_json(x, name)).decode() for x in values]
    return "json", np.array(texts, object)


def _json(x: Any, name: str) -> Any:
    if isinstance(x, np.generic):
        x = x.item()
    if x is None or isinstance(x, (str, bool, int, float)):
        return x
    if isinstance(x, tuple):
        return [_json(part, name) for part in x]
    raise DataTypeError(
        f"{name} {x!r} is a {type(x).__name__}, which has no plain form to be stored in; expected "
        "numbers, strings, dates or tuples of those: name the ids by such before training."
    )


def _tuples(x: Any) -> Any:
    return tuple(_tuples(part) for part in x) if isinstance(x, list) else x


def unknown(ids: Any, found: NDArray[np.int64], what: str) -> DataError:
    """Return the error that names the first ids that have no number."""
    strangers: Iterable[Any] = of(ids)[found < 0][:3].tolist()
    return DataError(
        f"{int((found < 0).sum())} {what} ids are unknown, {', '.join(map(repr, strangers))} for "
        f"some; expected {what}s of the training data, or a rule for others where `unknown` is one "
        "of the parameters."
    )
