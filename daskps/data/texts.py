"""Datasets from raw text through a vectoriser: `from_texts`.

Owns the walk from texts to blocks of counts. What a word is, is the vectoriser's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse

from daskps.errors import DataError

from .arrays import from_arrays
from .dataset import Dataset


def from_texts(
    texts: Any,
    vectorizer: Any,
    store: Any = None,
    *,
    n_partitions: int | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Make a dataset of texts, in their order, by a vectoriser that counts words.

    Parameters
    ----------
    texts
        Strings, or whatever the vectoriser takes: a list or other iterable, a pandas or dask
        Series, a dask bag. Lazy ones are counted partition by partition, where they are.
    vectorizer
        With ``transform(texts)`` to a sparse matrix of counts and ``get_feature_names_out()``, as
        scikit-learn's `CountVectorizer` has when it is fitted or was given its vocabulary. Its
        words become the names of the columns.
    store, n_partitions, overwrite
        As in `from_arrays`.

    Raises
    ------
    DataError
        If there are no texts.
    """
    words = [str(w) for w in vectorizer.get_feature_names_out()]
    width = len(words)
    options: dict[str, Any] = {"n_partitions": n_partitions, "overwrite": overwrite}
    if hasattr(texts, "to_delayed"):
        count = dask.delayed(_count, pure=False)
        shared = dask.delayed(vectorizer, pure=False, traverse=False)
        meta = scipy.sparse.csr_array((0, width), dtype=np.float32)
        blocks = [
            da.from_delayed(count(shared, part), (np.nan, width), meta=meta)
            for part in np.ravel(texts.to_delayed()).tolist()
        ]
        X: Any = da.concatenate(blocks, allow_unknown_chunksizes=True)
    else:
        X = _count(vectorizer, _listed(texts))
        if not X.shape[0]:
            raise DataError("there are no texts, expected at least 1.")
    return from_arrays(X, None, store, shuffle=False, feature_names=words, **options)


def _listed(texts: Iterable[Any]) -> Sequence[Any]:
    if isinstance(texts, (str, bytes)):
        raise DataError("texts is one string, expected many; give a list of it.")
    return list(texts)


def _count(vectorizer: Any, texts: Iterable[Any]) -> Any:
    return scipy.sparse.csr_array(vectorizer.transform(_listed(texts)), dtype=np.float32)
