"""Topic shares of documents under fixed topics, and how well they foretell words.

Arithmetic only; `daskps.kernels.lda` is the way in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._lda_sweep import F32, I64

# sums of products may be reordered, so that 16 topics go at once; nothing else may be assumed
FAST = {"reassoc", "nsz", "arcp", "contract"}
TINY = np.float32(1e-30)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def fold_in(
    indptr: I64,
    indices: NDArray[np.uint32],
    counts: F32,
    phi: F32,
    alpha: F32,
    n_iter: int,
    tol: float,
    theta: F32,
) -> None:
    """Fill `theta` (n, K) with each document's topic shares."""
    K = np.uint64(alpha.size)
    expected = np.empty(K, np.float32)
    for d in range(np.uint64(indptr.size - 1)):
        share = theta[d]
        share[:] = np.float32(1) / np.float32(K)
        for _ in range(n_iter):
            expected[:] = alpha
            for x in range(np.uint64(indptr[d]), np.uint64(indptr[d + 1])):
                row = phi[indices[x]]
                s = np.float32(0)
                for k in range(K):
                    s += share[k] * row[k]
                c = counts[x] / max(s, TINY)
                for k in range(K):
                    expected[k] += c * share[k] * row[k]
            whole, change = np.float32(0), np.float32(0)
            for k in range(K):
                whole += expected[k]
            for k in range(K):
                new = expected[k] / whole
                change += abs(new - share[k])
                share[k] = new
            if change < tol:
                break


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def log_likelihood(
    indptr: I64, indices: NDArray[np.uint32], counts: F32, phi: F32, theta: F32
) -> Any:
    """Return sum_dw c_dw log(sum_k theta_dk phi_wk)."""
    K, total = np.uint64(theta.shape[1]), 0.0
    for d in range(np.uint64(indptr.size - 1)):
        share = theta[d]
        for x in range(np.uint64(indptr[d]), np.uint64(indptr[d + 1])):
            row = phi[indices[x]]
            s = np.float32(0)
            for k in range(K):
                s += share[k] * row[k]
            total += np.float64(counts[x]) * np.log(np.float64(max(s, TINY)))
    return total
