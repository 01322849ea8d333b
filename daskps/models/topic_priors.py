"""Priors of topics by the counts that are there: Minka's fixed point on histograms.

Arithmetic only. A histogram says how many documents have a topic so many times; nothing else of the
documents is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma, psi

from daskps.server.messages import Arrays

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

SMALLEST = 1e-6
"""Priors are not below this: a topic that no document has would never come back."""
STEPS = 100
CLOSE = 1e-4
"""Relative change of a prior below which it is found."""


def alpha_of(rows: Arrays, numbers: I64, start: F64) -> F64:
    """Return the Dirichlet prior of documents' topics that makes their counts most likely.

    Repeats ``alpha_k <- alpha_k sum_d [psi(n_dk + alpha_k) - psi(alpha_k)] / sum_d [psi(N_d + A) -
    psi(A)]`` with ``A = sum_k alpha_k``.

    Parameters
    ----------
    rows
        A table of cells as `StepServer.rows` gives it: row k < K counts, at column n, the documents
        that have topic k n times, row K those that have n tokens.
    numbers
        Row of each of them.
    start
        Where to begin, shape (K,).

    References
    ----------
    Minka (2000), "Estimating a Dirichlet distribution", equation 55 with the digamma bound.
    """
    K = len(start)
    row = np.repeat(numbers, rows["lengths"])
    n, docs = rows["columns"].astype(np.float64), rows["counts"].astype(np.float64)
    length = row == K
    topic = row[~length]
    n_topic, d_topic, n_all, d_all = n[~length], docs[~length], n[length], docs[length]
    alpha = start
    if not d_all.sum():
        return alpha
    for _ in range(STEPS):
        whole = alpha.sum()
        below = float(d_all @ (psi(n_all + whole) - psi(whole)))
        gains = d_topic * (psi(n_topic + alpha[topic]) - psi(alpha[topic]))
        new = np.maximum(alpha * np.bincount(topic, gains, K) / below, SMALLEST)
        change, alpha = np.abs(new - alpha).max(), new
        if change < CLOSE * alpha.max():
            break
    return alpha


def alpha_of_logs(logs: F64, start: F64) -> F64:
    """Return the Dirichlet prior under which E[log theta] is `logs`.

    Solves ``psi(alpha_k) - psi(sum_j alpha_j) = logs_k``.

    Parameters
    ----------
    logs
        Shape (K,).
    start
        Where to begin, shape (K,).

    References
    ----------
    Minka (2000), "Estimating a Dirichlet distribution", equation 9, and appendix C for the inverse
    of psi.
    """
    alpha = start
    for _ in range(STEPS):
        new = np.maximum(_inverse_psi(logs + psi(alpha.sum())), SMALLEST)
        change, alpha = np.abs(new - alpha).max(), new
        if change < CLOSE * alpha.max():
            break
    return alpha


def logs_of(alpha: F64) -> F64:
    """Return E[log theta] under a Dirichlet prior, shape (K,)."""
    found: F64 = psi(alpha) - psi(alpha.sum())
    return found


def _inverse_psi(y: F64) -> F64:
    x = np.where(y >= -2.22, np.exp(y) + 0.5, -1 / (y - psi(1)))
    for _ in range(5):
        x = x - (psi(x) - y) / polygamma(1, x)
    return x


def beta_of(histogram: Arrays, n_k: I64, n_words: int, start: float) -> float:
    """Return the symmetric Dirichlet prior of topics' words that makes their counts most likely.

    Parameters
    ----------
    histogram
        How many cells of words by topic have which count.
    n_k
        Tokens of each topic.
    n_words
        V.
    start
        Where to begin.

    References
    ----------
    As `alpha_of`; Wallach (2008), "Structured Topic Models for Language", section 2.3.
    """
    counts, cells = histogram["counts"], histogram["cells"].astype(np.float64)
    beta = start
    if not cells.sum():
        return beta
    for _ in range(STEPS):
        whole = beta * n_words
        below = n_words * float((psi(n_k + whole) - psi(whole)).sum())
        above = float(cells @ (psi(counts + beta) - psi(beta)))
        new = max(beta * above / below, SMALLEST)
        change, beta = abs(new - beta), new
        if change < CLOSE * beta:
            break
    return beta


def histogram_changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return the keys at which two histograms differ, ascending, and by how much.

    Parameters
    ----------
    before, after
        ``keys``, ascending, and ``counts``.
    """
    keys, where = np.unique(np.concatenate([before["keys"], after["keys"]]), return_inverse=True)
    signed = np.concatenate([-before["counts"].astype(np.int64), after["counts"]])
    change = np.bincount(where, signed, len(keys)).astype(np.int32)
    return keys[change != 0], change[change != 0]
