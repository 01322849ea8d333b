"""The items with the largest products, block by block of users and items, in bounded memory.

Owns the way into the compiled loops of `_top_k`. Products are those of rows of two arrays; what
stands in them is the caller's business.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import _top_k

USERS, ITEMS = 128, 2048
"""Of a block: its scores take 1 MiB, which the second cache holds."""


class Seen(NamedTuple):
    """Entries that are ruled out, CSR; columns ascend in a row."""

    indptr: NDArray[np.int64]
    columns: NDArray[np.uint32]


def top_k(
    P: NDArray[np.float32], Q: NDArray[np.float32], k: int, seen: Seen | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the `k` largest products of each row of `P` with rows of `Q`.

    Parameters
    ----------
    P
        Shape (n, f).
    Q
        Shape (m, f).
    k
        At least 1.
    seen
        Rows of `Q` that do not count for a row of `P`.

    Returns
    -------
    best
        Descending, shape (n, k); -inf where there are fewer.
    which
        Rows of `Q`, -1 where there are fewer; of equal products the first ones.
    """
    best = np.full((len(P), k), -np.inf, np.float32)
    which = np.full((len(P), k), -1, np.int64)
    for start in range(0, len(P), USERS):
        rows = slice(start, start + USERS)
        own = None
        if seen is not None:
            edges = seen.indptr[start : start + USERS + 1]
            own = edges, _frozen(seen.columns)
        _block(P[rows], Q, own, best[rows], which[rows])
    return best, which


def _block(
    P: NDArray[np.float32], Q: NDArray[np.float32], seen: Any, best: Any, which: Any
) -> None:
    room = np.empty((len(P), ITEMS), np.float32)
    for start in range(0, len(Q), ITEMS):
        part = Q[start : start + ITEMS]
        scores = room[:, : len(part)] if len(part) == ITEMS else np.empty((len(P), len(part)), "f4")
        np.matmul(P, part.T, out=scores)
        if seen is not None:
            _top_k.mask(scores, start, _frozen(seen[0]), seen[1])
        _top_k.offer(scores, start, best, which)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = array.view()
    view.flags.writeable = False
    return view
