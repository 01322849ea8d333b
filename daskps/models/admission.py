"""Which features may enter a model whose keys grow: Poisson inclusion of rare ones.

Most features of unbounded data occur once or twice and only cost memory. By Poisson inclusion each
row that has a feature brings it into the model with a probability p: one that occurs k times gets a
weight with probability ``1 - (1 - p)^k``. Nothing is counted anywhere. The draws follow from the
seed, the key and the rows alone; so every pass, every attempt of a task and any number of workers
draw the same. A feature is learnt from the step on that its first admitted row belongs to, by all
partitions; before, rows are learnt from as if they had it not.

References
----------
McMahan et al. (2013), "Ad Click Prediction: a View from the Trenches", section 4.1.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import linear as kernel
from daskps.server._hashing import mix
from daskps.server.keys import KeySet


def in_model(pulled: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pulled rows, (m, n_pull, width), are more than what a fresh one would be."""
    return np.asarray(pulled[:, :2].any(axis=(1, 2)))


def admissions(
    keyset: KeySet, rows: kernel.Rows, probability: float, seed: int
) -> NDArray[np.bool_]:
    """Draw which keys some rows bring into the model, shape (m,).

    Parameters
    ----------
    keyset
        Of a table with hashed keys.
    rows
        Their indices are positions in `keyset`.
    probability
        Of each row by itself, > 0 and < 1.
    seed
        Any integer >= 0.
    """
    assert keyset.hashed, keyset.table
    assert keyset.at is not None, keyset.table
    content = hashlib.blake2b(rows.indptr.data, digest_size=8, key=seed.to_bytes(8, "little"))
    for array in (keyset.at, rows.indices, rows.y):
        content.update(np.ascontiguousarray(array).data)
    stream = np.frombuffer(content.digest(), np.uint64)
    times = np.bincount(rows.indices, minlength=len(keyset))
    # two rounds: one would map keys and streams that differ by as much to the same draw
    draw = mix(mix(keyset.at.astype(np.uint64)) + stream)
    uniform = (draw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    chosen: NDArray[np.bool_] = uniform < -np.expm1(times * np.log1p(-probability))
    return chosen
