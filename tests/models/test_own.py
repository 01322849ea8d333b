"""Models of the user's own: what steps are given, what becomes of pushes, what is refused."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import xarray as xr
from click.testing import CliRunner
from own_models import Doing

import daskps
from daskps import cli
from daskps.errors import CheckpointError, NonFinitePush
from daskps.models import own

SPREAD = {"bsp": {}, "ssp": {"consistency": "ssp"}, "asp": {"consistency": "asp"}}
spread = pytest.mark.parametrize("how", SPREAD.values(), ids=SPREAD)


def data(n_rows: int = 60, width: int = 300) -> tuple[sp.csr_array, np.ndarray]:
    rng = np.random.default_rng(0)
    X = sp.random_array((n_rows, width), density=0.02, rng=rng, format="csr", dtype=np.float32)
    return X, rng.normal(size=n_rows)


def run(act: Any, *tables: daskps.Table, keeps: tuple[str, ...] = (), **how: Any) -> daskps.Trained:
    many = daskps.from_arrays(*data(), n_partitions=4)
    return daskps.train(Doing(tables, act, keeps), many, **{"max_iter": 1, **how})


@spread
def test_sums_over_columns_labels_and_rows_are_exact(how: dict[str, str]) -> None:
    def act(rows: Any, server: Any) -> float:
        server.push("columns", rows.X.sum(axis=0)[:, None], rows.columns)
        server.push("rows", np.array([[len(rows), rows.weight.sum()]], np.int64))
        return float(rows.y.sum())

    fitted = run(
        act,
        daskps.Table("columns", 300, dtype="float64"),
        daskps.Table("rows", 1, 2, dtype="int64"),
        max_iter=3,
        rows_per_clock=4,
        **how,
    )
    X, y = data()
    np.testing.assert_allclose(fitted["columns"][:, 0], 3 * X.sum(axis=0), rtol=1e-6)
    assert fitted["rows"].tolist() == [[180, 180]]
    assert fitted.n_iter == 3
    assert fitted.stop_reason == "max_iter"
    mean = float((fitted.history.loss * fitted.history.samples).sum()) / 180
    assert mean == pytest.approx(y.mean())


@spread
@pytest.mark.parametrize("n_rows", [None, 300])
def test_pull_answers_in_the_order_of_keys(how: dict[str, str], n_rows: int | None) -> None:
    seen = []

    def act(rows: Any, server: Any) -> None:
        if server.clock == 0:
            delta = np.column_stack([rows.columns, -rows.columns.astype(np.float64)])
            server.push("t", delta / len(rows) if server.partition else delta * 0, rows.columns)
            return
        mixed = server.random(1).permutation(rows.columns)
        values = server.pull("t", mixed)
        seen.append((mixed, values, server.pull("t", rows.columns)))
        np.testing.assert_array_equal(values[np.argsort(mixed)], seen[-1][2])
        server.push("t", np.zeros((len(mixed), 2)), mixed)

    fitted = run(act, daskps.Table("t", n_rows, 2, dtype="float64"), max_iter=2, **how)
    if n_rows is None:
        where = {int(k): i for i, k in enumerate(fitted.tables["t_row"].to_numpy())}
    else:
        where = {k: k for k in range(n_rows)}
    assert seen
    if how == {}:  # no push lies between the clocks
        for keys, values, _ in seen:
            np.testing.assert_array_equal(values, fitted["t"][[where[int(k)] for k in keys]])
    ratio = fitted["t"][:, 0] + fitted["t"][:, 1]
    np.testing.assert_allclose(ratio, 0, atol=1e-9)


def test_rows_of_a_table_of_any_keys_are_there_from_the_first_push() -> None:
    def act(rows: Any, server: Any) -> None:
        keys = np.array([2**63 + server.partition, 7], np.uint64)
        before = server.pull("any", keys)
        assert (before != 0).all()
        server.push("any", np.ones((2, 3), np.float32), keys)

    table = daskps.Table("any", None, 3, init="normal", scale=0.5, seed=4)
    fitted = run(act, table)
    assert fitted.tables["any_row"].to_numpy().tolist() == [7, *(2**63 + p for p in range(4))]
    assert abs(fitted["any"][0].mean() - 4) < 2


def test_the_table_of_the_last_clock_forgets_what_was_before() -> None:
    def act(rows: Any, server: Any) -> None:
        server.push("last", np.full((5, 1), 10.0**server.clock))

    fitted = run(act, daskps.Table("last", 5, rule="last"), max_iter=3)
    assert (fitted["last"] == 4 * 100).all()


@spread
def test_responses_keep_steps_of_many_partitions_from_overshooting(how: dict[str, str]) -> None:
    def act(rows: Any, server: Any) -> None:
        w = server.pull("w")
        # each partition goes all the way to 1: (1 - w) / (1 + response) of a proximal step
        server.push("w", (1 - w) * 0.99, response=np.full((4, 1), 99.0))
        server.push("added", (1 - server.pull("added")) * 0.99)

    tables = daskps.Table("w", 4, rule="steps"), daskps.Table("added", 4, rule="steps")
    fitted = run(act, *tables, **how)
    assert np.abs(fitted["w"] - 1).max() < 0.02
    if how == {}:
        assert fitted["added"].min() > 2


@spread
def test_every_slice_of_rows_keeps_its_own(how: dict[str, str]) -> None:
    def act(rows: Any, server: Any) -> None:
        before = server.state()
        if before is not None:
            np.testing.assert_array_equal(before["y"], rows.y)
        visits = np.ones(1, int) if before is None else before["visits"] + 1
        kept = server.keep(y=rows.y, visits=visits)
        server.push("visits", kept["visits"][:, None] - (0 if before is None else before["visits"]))

    options = {"keeps": ("y", "visits"), "max_iter": 3, "rows_per_clock": 3, **how}
    fitted = run(act, daskps.Table("visits", 1, dtype="int64"), **options)
    slices = len(fitted.history.clock) // 3
    assert slices > 1
    assert fitted["visits"].item() == 3 * slices * 4


def test_tables_begin_with_what_is_given() -> None:
    def act(rows: Any, server: Any) -> None:
        np.testing.assert_array_equal(server.pull("a"), np.arange(300.0)[:, None])
        assert (server.pull("b") == 7).all()

    tables = (
        *(daskps.Table("a", 300), daskps.Table("b", 2, 2, scale=7.0)),
        daskps.Table("c", None, rule="steps"),
    )
    fitted = run(act, *tables, start={"a": np.arange(300.0)[:, None]})
    np.testing.assert_array_equal(fitted["a"][:, 0], np.arange(300.0))
    assert fitted["c"].shape == (0, 1)


def test_tables_are_saved_for_xarray(tmp_path: Path) -> None:
    def act(rows: Any, server: Any) -> None:
        keys = np.array([7, 2**63], np.uint64)
        server.push("any", np.ones((2, 1)), keys)

    fitted = run(act, daskps.Table("any", None), daskps.Table("few", 2, 3, scale=1.5))
    fitted.save(tmp_path / "t.zarr")
    with pytest.raises(FileExistsError):
        fitted.save(tmp_path / "t.zarr")
    fitted.save(tmp_path / "t.zarr", overwrite=True)
    opened = xr.open_zarr(tmp_path / "t.zarr")
    xr.testing.assert_equal(opened.load(), fitted.tables)
    assert opened["any"].sel(any_row=2**63).item() == 4
    told = CliRunner().invoke(cli.daskps, ["inspect", str(tmp_path / "t.zarr"), "--json"])
    found = json.loads(told.stdout)
    assert (found["kind"], found["tables"]) == ("tables", {"any": [2, 1], "few": [2, 3]})


def test_run_resumes_and_ends_with_the_bits_of_one_that_went_through(tmp_path: Path) -> None:
    def act(rows: Any, server: Any) -> float:
        before = server.state()
        n = 0 if before is None else int(before["n"])
        kept = server.keep(n=np.array(n + 1))
        server.push("t", server.pull("t") * 0.1 + kept["n"] + server.random().normal())
        return 1.0

    def go(passes: int, **how: Any) -> daskps.Trained:
        table = daskps.Table("t", 3, scale=1.0)
        return run(act, table, keeps=("n",), max_iter=passes, rows_per_clock=4, **how)

    where = str(tmp_path / "c.zarr")

    def stop(clock: int, loss: float) -> None:
        if clock == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(4, checkpoint=where, checkpoint_every=1, callback=stop)
    fitted = go(4, checkpoint=where, resume=True)
    assert fitted["t"].tobytes() == go(4)["t"].tobytes()
    with pytest.raises(CheckpointError, match="earlier run"):
        go(4, checkpoint=where)


def test_training_stops_when_held_out_rows_get_no_better() -> None:
    class Level(daskps.Model):
        def tables(self) -> list[daskps.Table]:
            return [daskps.Table("mean", 1)]

        def step(self, rows: Any, server: Any) -> float:
            mean = server.pull("mean")
            server.push("mean", np.full((1, 1), 0.1))
            return float(((rows.y - mean[0, 0]) ** 2).sum())

        def evaluate(self, rows: Any, server: Any) -> float:
            return float(abs(server.pull("mean")[0, 0] - 1) * len(rows))

    X, y = data()
    fitted = daskps.train(Level(), X, y, eval_set=(X, y), max_iter=50, tol=1e-4)
    assert fitted.stop_reason == "tol"
    assert fitted.n_iter < 50
    assert abs(fitted["mean"].item() - 1) < 0.7
    assert "Level, trained" in fitted._repr_html_()
    assert repr(Level()) == "Level()"


def test_own_model_needs_evaluate_for_held_out_rows() -> None:
    with pytest.raises(ValueError, match="no method evaluate"):
        run(lambda rows, server: None, daskps.Table("t", 1), eval_set=data())


MISTAKES = {
    "no such table": (lambda r, s: s.pull("u"), KeyError, "has no table 'u'; expected one of"),
    "key too large": (
        lambda r, s: s.pull("t", np.array([0, 300])),
        ValueError,
        "from 0 to 300; expected 0 to 299",
    ),
    "key twice": (lambda r, s: s.pull("t", np.array([4, 4])), ValueError, "one twice"),
    "float keys": (lambda r, s: s.pull("t", np.array([0.5])), ValueError, "expected integers"),
    "all of any": (lambda r, s: s.pull("any"), ValueError, "no 'all rows'"),
    "wrong shape": (
        lambda r, s: s.push("t", np.zeros((3, 2)), np.arange(3)),
        ValueError,
        r"shape \(3, 2\); expected \(3, 1\)",
    ),
    "floats for integers": (
        lambda r, s: s.push("n", np.zeros((1, 1))),
        TypeError,
        "float64; expected int64",
    ),
    "twice": (
        lambda r, s: [s.push("n", np.zeros((1, 1), int)) for _ in range(2)],
        RuntimeError,
        "'n' twice",
    ),
    "response": (
        lambda r, s: s.push("t", 0.0, r.columns, response=1.0),
        ValueError,
        "rule='steps'",
    ),
    "negative response": (
        lambda r, s: s.push("w", np.zeros((300, 1)), response=-1.0),
        ValueError,
        ">= 0",
    ),
    "no state": (lambda r, s: s.state(), RuntimeError, "`keeps` is empty"),
    "no number": (lambda r, s: "much", TypeError, "returned 'much' for a loss"),
    "NaN": (lambda r, s: s.push("t", np.nan, r.columns), NonFinitePush, "'t'"),
}


@pytest.mark.parametrize(("act", "error", "match"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_in_a_step_is_explained(act: Any, error: type[Exception], match: str) -> None:
    tables = (
        *(daskps.Table("t", 300), daskps.Table("any", None)),
        *(daskps.Table("n", 1, dtype="int64"), daskps.Table("w", 300, rule="steps")),
    )
    with pytest.raises(error, match=match):
        run(act, *tables)


def test_push_of_steps_on_arrival_needs_the_keys_of_its_pull() -> None:
    def act(rows: Any, server: Any) -> None:
        server.pull("w", rows.columns)
        server.push("w", np.zeros((300, 1)))

    with pytest.raises(RuntimeError, match="by other keys than it pulled"):
        run(act, daskps.Table("w", 300, rule="steps"), consistency="ssp")


@pytest.mark.parametrize(
    ("kept", "error", "match"),
    [
        ({"b": np.zeros(1)}, ValueError, r"kept \['b'\]; expected .*\['a'\]"),
        ({"a": np.array(["x"])}, TypeError, "expected numbers"),
    ],
)
def test_mistake_in_keeping_is_explained(kept: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        run(lambda rows, server: server.keep(**kept), daskps.Table("t", 1), keeps=("a",))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_rows": 0}, "n_rows=0"),
        ({"width": 1.5}, "width=1.5"),
        ({"rule": "mean"}, "rule='mean'"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"rule": "steps", "dtype": "float64"}, "expected 'float32'"),
        ({"init": "ones"}, "init='ones'"),
        ({"scale": np.inf}, "scale=inf"),
        ({"name": "a/b"}, "expected an identifier"),
        ({"name": "state"}, "not 'state'"),
    ],
)
def test_table_that_no_shard_could_hold_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        daskps.Table(**{"name": "t", "n_rows": 3, **change})


def test_arguments_of_train_are_checked() -> None:
    X, _ = data()
    table = daskps.Table("t", 3)
    good = Doing((table,), lambda rows, server: None)
    with pytest.raises(TypeError, match=r"derives from daskps\.Model"):
        daskps.train(daskps.LogisticRegression(), X)
    with pytest.raises(ValueError, match="name of its own"):
        daskps.train(Doing((table, table), good.act), X)
    with pytest.raises(TypeError, match=r"expected daskps\.Table"):
        daskps.train(Doing(("t",), good.act), X)
    with pytest.raises(ValueError, match=r"train\(max_iter=0\)"):
        daskps.train(good, X, max_iter=0)
    with pytest.raises(ValueError, match="start has 'u'"):
        daskps.train(good, X, start={"u": np.zeros((3, 1))})
    with pytest.raises(ValueError, match=r"expected finite numbers of shape \(3, 1\)"):
        daskps.train(good, X, start={"t": np.zeros(3)})


def test_example_in_the_docstring_runs() -> None:
    (example,) = (t for t in doctest.DocTestFinder().find(own, globs=vars(own)) if t.examples)
    example.globs |= {"daskps": daskps, "np": np}
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
