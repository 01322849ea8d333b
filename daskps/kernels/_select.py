"""Rows without some of their keys: CSR in, CSR out.

Arithmetic only; `daskps.kernels.linear` is the way in.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._state import F32


@njit(nogil=True, cache=True)
def select(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    known: NDArray[np.bool_],
    number: NDArray[np.uint32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.uint32],
    out_values: F32,
) -> int:
    """Copy the entries whose key is `known`, under its new `number`; return how many.

    `out_values` may be empty where there are no `values`.
    """
    n = 0
    out_indptr[0] = 0
    for i in range(indptr.size - 1):
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            key = indices[j]
            if known[key]:
                out_indices[n] = number[key]
                if values is not None:
                    out_values[n] = values[j]
                n += 1
        out_indptr[i + 1] = n
    return n
