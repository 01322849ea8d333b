"""From a topic model and documents to fitted counts, which are checked against the topics kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.errors import RunFailed
from daskps.kernels import lda
from daskps.models.topic_model import DOC_CELLS, DOC_PTR, TOPICS, WORDS, TopicModel
from daskps.run.launch import RunOptions, run_training
from daskps.server.messages import Arrays

Counts = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int32]]
"""Where each row begins, topics, counts."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a run leaves of a topic model."""

    words: Counts
    docs: Counts
    history: xr.Dataset
    clocks: int
    reason: str
    alpha: NDArray[np.float64]
    beta: float


def fit_topics(
    model: TopicModel, dataset: Dataset, options: RunOptions, tokens: int, client: Any
) -> Fitted:
    """Train, and put together what the shards and partitions hold.

    Raises
    ------
    RunFailed
        If the counts of words, topics and documents do not agree: this must not happen.
    """
    parts: dict[int, Counts] = {}
    priors: dict[int, tuple[NDArray[np.float64], float]] = {}

    def collect(partition: int, state: Arrays) -> None:
        parts[partition] = _documents(state)
        if model.learn:  # in BSP those of all partitions are the same
            priors[partition] = state["alpha"].copy(), float(state["beta"][0])

    outcome = run_training(model, dataset, options, collect=collect, client=client)
    keys, values = outcome.values[WORDS]
    assert keys is not None, WORDS
    words = _rows(keys, values[:, 0], model)
    docs = _stacked([parts[p] for p in range(dataset.n_partitions)])
    _check(words, docs, outcome.values[TOPICS][1][0], tokens, outcome.clock >= model.slices)
    last = priors.get(0, (np.array(model.alpha), model.beta))
    history = outcome.ledger.to_xarray()
    return Fitted(words, docs, history, outcome.clock, outcome.reason, *last)


def _documents(state: Arrays) -> Counts:
    cells = state[DOC_CELLS]
    bits = cells.dtype.type(lda.bits_of(cells))
    mask = (cells.dtype.type(1) << bits) - cells.dtype.type(1)
    counts = (cells & mask).astype(np.int32)
    return state[DOC_PTR], (cells >> bits).astype(np.uint32), counts


def _rows(keys: NDArray[np.uint64], counts: NDArray[np.int32], model: TopicModel) -> Counts:
    K = np.uint64(model.n_topics)
    ptr = np.searchsorted(keys, np.arange(model.n_words + 1, dtype=np.uint64) * K)
    return ptr.astype(np.int64), (keys % K).astype(np.uint32), counts.copy()


def _stacked(parts: list[Counts]) -> Counts:
    ends = np.cumsum([0, *(ptr[-1] for ptr, _, _ in parts)])
    ptr = [p[0][1:] + end for p, end in zip(parts, ends, strict=False)]
    return (
        np.concatenate([[0], *ptr]).astype(np.int64),
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
    )


def _check(
    words: Counts, docs: Counts, totals: NDArray[np.int64], tokens: int, complete: bool
) -> None:
    K = len(totals)
    by_words, by_docs = (np.bincount(c[1], c[2], K) for c in (words, docs))
    agree = bool((by_words == totals).all() and (by_docs == totals).all())
    if not agree or (complete and int(totals.sum()) != tokens):
        raise RunFailed(
            f"topic counts do not agree: {by_words.sum():.0f} tokens by words, {by_docs.sum():.0f} "
            f"by documents and {totals.sum()} by topics, expected {tokens}. This is a fault of "
            "daskps; please report it."
        )
