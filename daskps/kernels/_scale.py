"""How large the values of each key are: sums of squares over CSR rows.

Arithmetic only; `daskps.kernels.linear` is the way in.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._state import F32


@njit(nogil=True, cache=True)
def sums_of_squares(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    weight: F32,
    out: NDArray[np.float64],
) -> float:
    """Add weight x value^2 to `out` (m,) for every key; return the sum of weights."""
    total = 0.0
    for i in range(indptr.size - 1):
        sw = np.float64(weight[i]) if weight.size > 0 else 1.0
        total += sw
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            x = 1.0 if values is None else np.float64(values[j])
            out[indices[j]] += sw * x * x
    return total
