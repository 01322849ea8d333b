"""What is compared with a calm run: every array that an estimator has learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import xarray as xr
from sklearn.base import BaseEstimator

from daskps.testing import calm_run, fingerprint
from daskps.testing.problems import PROBLEMS


class Learnt(BaseEstimator):
    """An estimator with learnt things of every kind."""

    def fit(self) -> None:
        self.coef_, self.rows_ = np.ones(2), sp.csr_array(np.eye(2))
        self.n_iter_, self.names_, self.history_ = 3, np.array(["a"], object), np.ones(1)
        self._hidden_ = np.ones(1)

    @property
    def factors_(self) -> xr.DataArray:
        return xr.DataArray(self.coef_ * 2)

    @property
    def not_there_(self) -> Any:
        raise AttributeError("only some have it")


def test_arrays_are_compared_whether_they_are_attributes_or_properties() -> None:
    model = Learnt()
    model.fit()
    found = fingerprint(model)
    rows = ["rows_.data", "rows_.indices", "rows_.indptr"]
    assert sorted(found) == ["coef_", "factors_", *rows]
    assert found["factors_"] == np.full(2, 2.0).tobytes()


@pytest.mark.parametrize("name", ["lr-bsp", "mf-sgd", "lda-bsp"])
def test_runs_of_every_family_have_something_to_compare(name: str) -> None:
    problem = PROBLEMS[name]()
    problem.fit(model := problem.estimator.set_params(max_iter=1))
    assert max(map(len, fingerprint(model).values())) > 1000


def test_what_learns_no_arrays_cannot_be_compared() -> None:
    class Nothing(BaseEstimator):
        """Learns nothing."""

    with pytest.raises(ValueError, match="no arrays"):
        calm_run(Nothing(), lambda model: None)
