"""Server functions: numpy's answers in float64, and the same bits on any number of shards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from in_process import Group, make_spec

from daskps.server.tables import Init, TableSpec
from daskps.server.updaters import FTRL, SGD, AdaGrad, Add

SPEC = make_spec(
    TableSpec("x", 1000, 2, AdaGrad(), init=Init("normal", 1.0, 1)),
    TableSpec("y", 1000, 2, FTRL(), init=Init("uniform", 1.0, 2)),
    TableSpec("sum", 1000, 2, Add(), init=Init("normal", 1.0, 3)),
    TableSpec("sparse", 1000, 1, SGD(), init=Init("constant", 0.0)),
)
REFERENCE: dict[str, tuple[dict[str, str], Callable[..., float]]] = {
    "norm1": ({"table": "x"}, lambda x: float(np.abs(x).sum())),
    "norm2": ({"table": "x"}, lambda x: float(np.linalg.norm(x))),
    "dot": ({"table": "x", "other": "y"}, lambda x, y: float((x * y).sum())),
    "count_nonzero": ({"table": "sparse"}, lambda x: float(np.count_nonzero(x))),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_reductions_agree_with_numpy_and_ignore_the_number_of_shards(name: str) -> None:
    params, reference = REFERENCE[name]
    answers = []
    for n_shards in (1, 2, 4):
        group = Group(SPEC, n_shards)
        arrays = [group.values(table)[1].astype(np.float64) for table in params.values()]
        answers.append(group.reduce(name, **params))
        assert answers[-1] == pytest.approx(reference(*arrays), rel=1e-12)
    assert len(set(answers)) == 1


@pytest.mark.parametrize("n_shards", [1, 2, 4])
def test_axpy_adds_a_multiple_of_another_table(n_shards: int) -> None:
    group = Group(SPEC, n_shards)
    x, before = group.values("x")[1], group.values("sum")[1]
    assert group.reduce("axpy", a=0.5, table="x", into="sum") == 1000
    expected = before + (0.5 * x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(group.values("sum")[1], expected)


@pytest.mark.parametrize("n_shards", [1, 3])
def test_fill_sets_every_number(n_shards: int) -> None:
    group = Group(SPEC, n_shards)
    assert group.reduce("fill", table="sum", value=2.5) == 1000
    assert (group.values("sum")[1] == 2.5).all()


@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        pytest.param("median", {}, "unknown server function 'median'", id="function"),
        pytest.param("norm1", {"table": "z"}, "no table 'z'", id="table"),
        pytest.param("axpy", {"a": 1.0, "table": "x", "into": "z"}, "no table 'z'", id="into"),
        pytest.param("axpy", {"a": 1.0, "table": "x", "into": "y"}, "FTRL keeps state", id="state"),
        pytest.param(
            "dot", {"table": "x", "other": "sparse"}, "'x'.*'sparse'.*of one shape", id="dot-shape"
        ),
        pytest.param(
            "axpy", {"a": 1.0, "table": "sparse", "into": "sum"}, "of one shape", id="axpy-shape"
        ),
    ],
)
def test_functions_refuse_what_they_cannot_do(
    function: str, params: dict[str, object], message: str
) -> None:
    group = Group(SPEC, 1)
    before = group.values("sum")[1]
    with pytest.raises(ValueError, match=message):
        group.reduce(function, **params)
    np.testing.assert_array_equal(group.values("sum")[1], before)
