"""Topic shares of documents under fixed topics, partition by partition; it travels to workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset, Partition
from daskps.errors import DataError
from daskps.kernels import lda
from daskps.models.documents import check_values, halves, whole_counts

F32 = NDArray[np.float32]

DENSE = 2**25
"""Probabilities of words that are made at a time."""


@dataclass(frozen=True, slots=True)
class TopicScore:
    """Topics by the counts of their words.

    Parameters
    ----------
    ptr, topics, counts
        Of each word, its topics and how often it has them.
    n_k
        Tokens of each topic.
    alpha, beta
        Priors.
    n_iter, tol
        See `daskps.kernels.lda.fold_in`.
    """

    ptr: NDArray[np.int64]
    topics: NDArray[np.uint32]
    counts: NDArray[np.int32] | NDArray[np.float32]
    n_k: NDArray[np.int64] | NDArray[np.float64]
    alpha: NDArray[np.float64]
    beta: float
    n_iter: int = 100
    tol: float = 1e-3

    @property
    def n_words(self) -> int:
        """Size of the vocabulary."""
        return len(self.ptr) - 1

    def phi(self, words: NDArray[np.int64]) -> F32:
        """Return the probability of words in each topic, shape (len(words), K)."""
        found = np.full((len(words), len(self.n_k)), self.beta, np.float32)
        sizes = self.ptr[words + 1] - self.ptr[words]
        at = np.repeat(self.ptr[words] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        at += np.arange(len(at))
        found[np.repeat(np.arange(len(words)), sizes), self.topics[at]] += self.counts[at]
        found /= (self.n_k + self.n_words * self.beta).astype(np.float32)
        return found

    def exactly(self) -> TopicScore:
        """Return the same with all steps taken."""
        return replace(self, tol=0.0)

    def __call__(self, part: Partition) -> F32:
        """Return the topic shares of each document, shape (n_rows, K)."""
        check_values(part)
        alpha = self.alpha.astype(np.float32)
        theta = [
            lda.fold_in(*block, alpha, n_iter=self.n_iter, tol=self.tol)
            for block in self._blocks(part)
        ]
        return np.concatenate(theta) if theta else np.empty((0, len(alpha)), np.float32)

    def log_likelihood(self, part: Partition, theta: F32) -> float:
        """Return the log-probability of documents that have the shares `theta`."""
        total, first = 0.0, 0
        for block in self._blocks(part):
            n = len(block[0]) - 1
            total += lda.log_likelihood(*block, theta[first : first + n])
            first += n
        return total

    def _blocks(
        self, part: Partition
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32], F32, F32]]:
        """Yield some documents at a time as CSR, and the probabilities of their words."""
        most = max(1, DENSE // len(self.n_k))
        first = 0
        while first < part.n_rows:
            reach = np.searchsorted(part.indptr, part.indptr[first] + most, side="right")
            stop = max(first + 1, int(reach) - 1)
            some = part.rows(first, min(stop, part.n_rows))
            words, local = np.unique(some.indices, return_inverse=True)
            phi = self.phi(words.astype(np.int64))
            yield some.indptr, local.astype(np.uint32), whole_counts(some), phi
            first = stop

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays = (self.ptr, self.topics, self.counts, self.n_k, self.alpha)
        return sum(a.nbytes for a in arrays)


def completion(score: TopicScore, dataset: Dataset, rng: np.random.Generator) -> float:
    """Return the perplexity of halves of documents, by their other halves.

    Raises
    ------
    DataError
        If no document has two tokens.
    """
    total = n = 0.0
    for i in range(dataset.n_partitions):
        known, asked = halves(dataset.partition(i), rng)
        total += score.log_likelihood(asked, score(known))
        n += float(0 if asked.values is None else asked.values.sum())
    if not n:
        raise DataError("no document has two tokens; expected some to complete.")
    return float(np.exp(-total / n))
