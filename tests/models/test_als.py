"""Alternating least squares begins where few passes are enough, and needs no penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from daskps import MatrixFactorization


def counts(n_users: int, n_items: int) -> Any:
    rng = np.random.default_rng(0)
    P, Q = rng.gamma(0.3, size=(n_users, 4)), rng.gamma(0.3, size=(n_items, 4))
    return sp.csr_array(rng.poisson(P @ Q.T / 2).astype(np.float32))


@pytest.mark.parametrize("shape", [(30, 900), (400, 400)])
def test_counts_need_no_choice_of_initial_factors(shape: tuple[int, int]) -> None:
    X = counts(*shape)

    def objective(init_scale: float | None) -> float:
        how = {"loss": "implicit", "reg": 1.0, "max_iter": 3, "init_scale": init_scale}
        fits = (MatrixFactorization(8, random_state=s, **how).fit(X) for s in range(3))
        return float(np.mean([fit.history_.objective[-1] for fit in fits]))

    found = [objective(s) for s in (1e-2, 1e-1, 1.0, 10.0)]
    assert max(found) > 1.04 * min(found)  # it is a choice
    assert objective(None) < 1.015 * min(found)


@pytest.mark.parametrize("options", [{}, {"biases": False}])
def test_users_with_fewer_ratings_than_factors_need_no_penalty(options: dict[str, Any]) -> None:
    X = sp.random_array((60, 40), density=0.1, rng=np.random.default_rng(0), format="csr")
    m = MatrixFactorization(16, solver="als", reg=0.0, max_iter=15, cg_steps=8, **options).fit(X)
    rows, columns = X.nonzero()
    # each rating has several numbers of its own
    assert np.abs(m.predict(rows, columns) - X.data).max() < 0.05
    assert np.abs(m.item_factors_).max() < 10
