"""Documents of the topic benchmark, and the one score for everybody's topics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

import daskps
from daskps.data import from_arrays
from daskps.kernels import lda
from daskps.models.documents import halves

TINY = 1e-12


@dataclass(frozen=True)
class Documents:
    """Counts: training documents, and two halves of each held-out one."""

    train: scipy.sparse.csr_array
    known: scipy.sparse.csr_array
    asked: scipy.sparse.csr_array


def from_docword(path: Path) -> Documents:
    """Hold a tenth of a UCI file's documents out, 2,000 at most."""
    dataset = daskps.read_docword(path)
    parts = [dataset.partition(i).to_scipy() for i in range(dataset.n_partitions)]
    X = scipy.sparse.csr_array(scipy.sparse.vstack(parts))
    X = X[np.diff(X.indptr) > 0]
    order = np.random.default_rng(13).permutation(X.shape[0])
    n = min(2000, X.shape[0] // 10)
    return _held_out(X[order[n:]], X[order[:n]])


def synthetic(n_docs: int, n_words: int, K: int = 100, length: int = 100) -> Documents:
    """Draw documents of planted topics, whose words follow Zipf's law."""
    rng = np.random.default_rng(13)
    base = rng.permutation(1.0 / (np.arange(n_words) + 10.0))
    base *= 500 / base.sum()
    topics = np.stack([np.cumsum(rng.gamma(np.maximum(base, 1e-6))) for _ in range(K)])
    n = n_docs + max(100, n_docs // 50)
    theta = np.cumsum(rng.dirichlet(np.full(K, 0.1), n), axis=1)
    docs = np.repeat(np.arange(n), length)
    z = np.minimum((theta[docs] < rng.random(len(docs))[:, None]).sum(axis=1), K - 1)
    words = np.empty(len(docs), np.int64)
    for k in range(K):
        mine = np.flatnonzero(z == k)
        u = rng.random(len(mine)) * topics[k, -1]
        words[mine] = np.minimum(np.searchsorted(topics[k], u), n_words - 1)
    cells = (np.ones(len(docs), np.float32), (docs, words))
    X = scipy.sparse.csr_array(scipy.sparse.coo_array(cells, (n, n_words)))
    return _held_out(X[:n_docs], X[n_docs:])


def _held_out(train: scipy.sparse.csr_array, test: scipy.sparse.csr_array) -> Documents:
    part = from_arrays(test, shuffle=False, n_partitions=1).partition(0)
    known, asked = halves(part, np.random.default_rng(14))
    return Documents(train, known.to_scipy(), asked.to_scipy())


def perplexity(topics: np.ndarray, data: Documents) -> float:
    """Return the document-completion perplexity of topics, (K, V), in any scale."""
    phi = np.maximum(topics / topics.sum(axis=1, keepdims=True), TINY)
    phi = np.ascontiguousarray((phi / phi.sum(axis=1, keepdims=True)).T, np.float32)
    known, asked = (
        (x.indptr.astype(np.int64), x.indices.astype(np.uint32), x.data.astype(np.float32))
        for x in (data.known, data.asked)
    )
    K = len(topics)
    theta = lda.fold_in(*known, phi, np.full(K, 10 / K, np.float32))
    total = lda.log_likelihood(*asked, phi, theta)
    return float(np.exp(-total / data.asked.sum()))
