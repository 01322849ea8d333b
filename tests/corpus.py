"""Documents of planted topics, and topic models of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse

import daskps
from daskps import LatentDirichletAllocation

DOCS, V, K = 240, 120, 6


@functools.cache
def corpus() -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Return counts of words, some documents empty, and the topics that they were made of."""
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.full(V, 0.05), K)
    theta = rng.dirichlet(np.full(K, 0.2), DOCS)
    lengths = rng.integers(30, 80, DOCS) * (rng.random(DOCS) < 0.95)
    counts = [rng.multinomial(n, t @ phi) for n, t in zip(lengths, theta, strict=True)]
    return scipy.sparse.csr_array(np.array(counts)), phi


def data(partitions: int = 3) -> daskps.Dataset:
    return daskps.from_arrays(corpus()[0], n_partitions=partitions, shuffle=False)


def topics(**parameters: Any) -> LatentDirichletAllocation:
    """Return a model that is not fitted."""
    given = {"n_components": K, "doc_topic_prior": 0.2, "topic_word_prior": 0.05, "max_iter": 60}
    return LatentDirichletAllocation(**given | parameters)


@functools.cache
def calm(**parameters: Any) -> LatentDirichletAllocation:
    """Return a model fitted in this process."""
    return topics(**parameters).fit(data())


def bits(model: LatentDirichletAllocation) -> Mapping[str, bytes]:
    names = ("word_ptr_", "word_topics_", "word_counts_", "doc_ptr_", "doc_topics_", "doc_counts_")
    return {name: getattr(model, name).tobytes() for name in names}


def check_agreement(model: LatentDirichletAllocation) -> None:
    """Assert that the counts of words and documents are those of the corpus and of each other."""
    X = corpus()[0]
    words, docs = model.topic_word_counts_, model.doc_topic_counts_
    np.testing.assert_array_equal(words.sum(axis=0), X.sum(axis=0))
    np.testing.assert_array_equal(docs.sum(axis=1), X.sum(axis=1))
    np.testing.assert_array_equal(docs.sum(axis=0), words.sum(axis=1))
    assert (words.data > 0).all()
    assert (docs.data > 0).all()
