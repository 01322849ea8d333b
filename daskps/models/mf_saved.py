"""Saved factorisations: factors, biases, ids, and what users have rated, in one Zarr group.

The rest of a saved model, its manifest and its history, is as in `saved`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from daskps.data import Dataset, Partition, vocabulary
from daskps.data.format import Manifest, array_of
from daskps.data.ratings import Ratings
from daskps.data.sources import MemorySource
from daskps.models import user_rows
from daskps.models.factored import Factored
from daskps.models.saved import create_array, write_array

_FACTORED = {
    "item_factors": ("Q", ("item", "factor")),
    "user_bias": ("user_bias", ("user",)),
    "item_bias": ("item_bias", ("item",)),
    "item_count": ("counts", ("item",)),
}


def write(group: zarr.Group, model: Factored, ratings: Ratings | None) -> dict[str, Any]:
    """Write a model's arrays; return what must be known to read them."""
    user_rows.write(group, user_rows.NAME, model.P)
    for name, (field, dims) in _FACTORED.items():
        write_array(group, name, getattr(model, field), dims)
    about: dict[str, Any] = {"mean": model.center, "seen": ratings is not None}
    about["users"] = vocabulary.write(group, "user", model.users, "user")
    about["items"] = vocabulary.write(group, "item", model.items, "item")
    if ratings is not None:
        _write_seen(group, ratings.dataset)
    return about


def _write_seen(group: zarr.Group, dataset: Dataset) -> None:
    """Write what users rated, a partition at a time."""
    numbers = range(dataset.n_partitions)
    lengths = np.concatenate([dataset.row_lengths(p) for p in numbers])
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    write_array(group, "seen_indptr", indptr, ("seen_edge",))
    n, dtype = int(indptr[-1]), dataset.index_dtype
    array, first = create_array(group, "seen_item", (n,), dtype, ("seen",)), 0
    for p in numbers:
        columns = dataset.partition(p).indices
        array[first : first + len(columns)] = columns
        first += len(columns)


def read(group: zarr.Group, about: dict[str, Any]) -> tuple[Factored, Ratings | None]:
    """Return what `write` wrote."""
    arrays = {field: _all(group, name) for name, (field, _) in _FACTORED.items()}
    users = vocabulary.read(group, "user", about["users"])
    items = vocabulary.read(group, "item", about["items"])
    P = _user_factors(group[user_rows.NAME])
    model = Factored(users=users, items=items, center=about["mean"], P=P, **arrays)
    if not about["seen"]:
        return model, None
    indptr, columns = _all(group, "seen_indptr"), _all(group, "seen_item")
    part = Partition(indptr, columns, None, None, None, len(items))
    manifest = Manifest(n_partitions=1, n_rows=len(users), nnz=len(columns), n_features=len(items))
    return model, Ratings(Dataset(manifest, MemorySource([part], None)), users, items)


LARGE = 2**28
"""Bytes of factors of users from which on they are left in the store."""


def _user_factors(array: Any) -> user_rows.Rows:
    return user_rows.StoredRows(array) if array.nbytes > LARGE else np.asarray(array[...])


def _all(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(array_of(group, name)[...])
