"""How data for a model that is there get the features that it was trained on.

Owns the agreement of hashed columns, and the look-up of column ids among the keys that a model
holds. The hash itself is in `daskps.data`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset, Hashing, Partition
from daskps.errors import DataError
from daskps.server._hashing import FREE
from daskps.server.key_index import KeyIndex


class Score(Protocol):
    """See `daskps.models.predict.Score`."""

    def __call__(self, part: Partition) -> NDArray[np.float32]:
        """Return the margins of the rows of `part`."""


def check_dense(estimator: Any) -> None:
    """Refuse what needs a weight for each column id."""
    if estimator.keys == "hash":
        raise ValueError(
            f"{type(estimator).__name__}(keys='hash') has weights for {len(estimator.coef_keys_)} "
            "column ids only, scikit-learn's estimators need one for each; train with "
            "keys='range', on data with hash_features if ids are too large."
        )


def hashed_alike(dataset: Dataset, how: Hashing | None, name: str) -> Dataset:
    """Return `dataset` hashed as the training data were, the estimator being called `name`.

    Raises
    ------
    DataError
        If it is hashed in another way; what collided cannot be told apart again.
    """
    if dataset.hashing == how:
        return dataset
    if dataset.hashing is not None:
        wanted = "plain column ids" if how is None else repr(how)
        raise DataError(
            f"X is hashed by {dataset.hashing!r}, but {name} was trained on {wanted}; ingest both "
            "with the same hash_features, alternate_sign and hash_seed, or give the data unhashed."
        )
    assert how is not None
    return dataset.hashed(how)


class KeyedScore:
    """Margins by weights that have keys; column ids without a key have the weight zero.

    Parameters
    ----------
    keys
        Column ids, ascending, shape (m,).
    score
        Takes rows whose columns are positions in `keys`.
    """

    def __init__(self, keys: NDArray[np.uint64], score: Score) -> None:
        self._index = KeyIndex(keys)
        self._score = score

    def __call__(self, part: Partition) -> NDArray[np.float32]:
        """Return the margins of the rows of `part`."""
        return self._score(_by_key(self._index, part))

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return self._index.nbytes + self._score.__sizeof__()


def _by_key(index: KeyIndex, part: Partition) -> Partition:
    numbers = index.find(part.indices.astype(np.uint64, copy=False))
    known = numbers != FREE
    if known.all():
        return dataclasses.replace(part, indices=numbers, n_features=len(index))
    kept = np.concatenate(([0], np.cumsum(known, dtype=np.int64)))
    values: Any = None if part.values is None else part.values[known]
    return dataclasses.replace(
        part,
        indptr=kept[part.indptr],
        indices=numbers[known],
        values=values,
        n_features=len(index),
    )
