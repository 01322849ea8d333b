"""Topics that are nearly the same become one."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Model = TypeVar("Model", bound=Any)
BLOCK = 1024
"""Topics whose likeness to all others is looked at together."""


def groups_of(counts: Any, threshold: float) -> NDArray[np.int64]:
    """Return for each topic the number of its group, in the order of their first topics.

    Parameters
    ----------
    counts
        Shape (K, n_words), sparse.
    threshold
        Cosine from which on two topics are one.
    """
    rows = scipy.sparse.csr_array(counts, dtype=np.float64)
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scaled = scipy.sparse.diags_array(1 / np.maximum(norms, 1e-300)) @ rows
    alike = []
    for first in range(0, rows.shape[0], BLOCK):
        cosines = (scaled[first : first + BLOCK] @ scaled.T).tocoo()
        near = cosines.data >= threshold - 1e-12
        alike.append((cosines.row[near] + first, cosines.col[near]))
    i, j = (np.concatenate(x) for x in zip(*alike, strict=True))
    graph = scipy.sparse.coo_array((np.ones(len(i)), (i, j)), (rows.shape[0],) * 2)
    labels = connected_components(graph, directed=False)[1]
    _, first_of, group = np.unique(labels, return_index=True, return_inverse=True)
    rank: NDArray[np.int64] = np.argsort(np.argsort(first_of))[group]
    return rank


def merged(model: Model, groups: NDArray[np.int64]) -> Model:
    """Return a copy of a fitted model whose topics of a group are one."""
    n = int(groups.max()) + 1
    other = copy.copy(model)
    other.n_components = n
    words = _joined(model.word_ptr_, model.word_topics_, model.word_counts_, groups, n)
    other.word_ptr_, other.word_topics_, other.word_counts_ = words
    if model.doc_ptr_ is not None:
        docs = _joined(model.doc_ptr_, model.doc_topics_, model.doc_counts_, groups, n)
        other.doc_ptr_, other.doc_topics_, other.doc_counts_ = docs
    other.doc_topic_prior_ = np.bincount(groups, model.doc_topic_prior_, n)
    return other


def _joined(
    ptr: NDArray[np.int64],
    topics: NDArray[np.uint32],
    counts: NDArray[Any],
    groups: NDArray[np.int64],
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[Any]]:
    rows = scipy.sparse.csr_array((counts, groups[topics], ptr), (len(ptr) - 1, n), copy=True)
    rows.sum_duplicates()
    return (
        rows.indptr.astype(np.int64),
        rows.indices.astype(np.uint32),
        rows.data.astype(counts.dtype),
    )
