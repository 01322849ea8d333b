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


def test_few_users_of_many_items_need_no_choice_of_initial_factors() -> None:
    X = counts(30, 900)

    def objective(init_scale: float | None) -> float:
        m = MatrixFactorization(8, loss="implicit", reg=1.0, max_iter=4, init_scale=init_scale)
        return float(m.fit(X).history_.objective[-1])

    found = [objective(s) for s in (1e-3, 1e-2, 1e-1, 1.0, 10.0)]
    assert max(found) > 1.04 * min(found)  # it is a choice
    assert objective(None) < 1.01 * min(found)


@pytest.mark.parametrize("options", [{}, {"biases": False}, {"loss": "implicit"}])
def test_users_with_fewer_ratings_than_factors_need_no_penalty(options: dict[str, Any]) -> None:
    X = sp.random_array((60, 40), density=0.1, rng=np.random.default_rng(0), format="csr")
    m = MatrixFactorization(16, solver="als", reg=0.0, max_iter=15, cg_steps=8, **options).fit(X)
    rows, columns = X.nonzero()
    wanted = 1.0 if options.get("loss") == "implicit" else X.data
    # each rating has several numbers of its own
    assert np.abs(m.predict(rows, columns) - wanted).max() < 0.2
