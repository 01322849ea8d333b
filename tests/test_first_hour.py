"""What a new user runs into in the first hour: each error says what to do, and stands on a page."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
import scipy.sparse
import zarr
from cluster_tools import start_python, stop_group, wait_until
from distributed import Client

import daskps
from daskps import cluster
from daskps.cli import checks
from daskps.run.dask_engine import DaskEngine
from daskps.run.size import Size, check_fits

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "errors.md"
X, Y = np.eye(8), np.arange(8) % 2
Case = Callable[[Path], object]


def blocks() -> list[str]:
    """Return the errors of the page, as patterns: an ellipsis stands for anything."""
    found = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [re.escape(" ".join(text.split())).replace("…", ".+?") for text in found]


def said_by(cause: Callable[[], object]) -> str:
    """Return the error of `cause` as a traceback ends with it."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # the page says which
        cause()
    text = f"{type(caught.value).__name__}: {caught.value}"
    return " ".join(text.split())


def assert_on_page(text: str) -> set[str]:
    """Assert that an error stands on the page; return where."""
    which = {b for b in blocks() if re.fullmatch(b, text)}
    assert which, f"not on {PAGE.name}: {text}"
    return which


def quick(**options: Any) -> daskps.LogisticRegression:
    return daskps.LogisticRegression(max_iter=1, progress=False, **options)


def a_dataset_of_the_future(folder: Path) -> None:
    daskps.from_arrays(X, Y, folder / "d")
    group = zarr.open_group(folder / "d", mode="r+")
    group.attrs["daskps"] = {**group.attrs["daskps"], "version": 99}
    quick().fit(folder / "d")


def files_that_are_no_dataset(folder: Path) -> None:
    (folder / "rows.svm").write_text("1 1:1\n")
    quick().fit(folder)


def a_store_that_is_taken(folder: Path) -> None:
    for _ in range(2):
        daskps.from_arrays(X, Y, folder / "d")


def an_earlier_checkpoint(folder: Path) -> None:
    for _ in range(2):
        quick(checkpoint=folder / "c").fit(X, Y)


def a_table_without_the_columns(folder: Path) -> None:
    pd.DataFrame({"userId": [1], "movieId": [2], "rating": [3.0]}).to_csv(folder / "r.csv")
    daskps.read_ratings(folder / "r.csv")


def a_model(folder: Path) -> Path:
    quick().fit(X, Y).save(folder / "m")
    return folder / "m"


def a_model_for_a_dataset(folder: Path) -> None:
    quick().fit(a_model(folder))


def a_dataset_for_a_model(folder: Path) -> None:
    daskps.from_arrays(X, Y, folder / "d")
    daskps.load(folder / "d")


def a_model_that_is_there(folder: Path) -> None:
    quick().fit(X, Y).save(a_model(folder))


def lines_of(text: str, read: Callable[[Path], object]) -> Case:
    """Return what reads a file of these lines."""

    def cause(folder: Path) -> object:
        (folder / "file").write_text(text)
        return read(folder / "file")

    return cause


def nobody_answers(folder: Path) -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        cluster.connect("tcp://127.0.0.1:1"),
    ):
        raise AssertionError


def without(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Let modules not be found."""
    for name in names:
        patch.setitem(sys.modules, name, None)


def no_matplotlib(folder: Path, patch: pytest.MonkeyPatch) -> None:
    fitted = quick().fit(X, Y)
    without(patch, "matplotlib", "matplotlib.pyplot")
    fitted.plot.loss()


def no_pyarrow(folder: Path, patch: pytest.MonkeyPatch) -> None:
    without(patch, "pyarrow", "fastparquet")
    (folder / "ratings.parquet").write_bytes(b"PAR1")
    daskps.read_ratings(folder / "ratings.parquet")


def no_s3fs(folder: Path, patch: pytest.MonkeyPatch) -> None:
    without(patch, "s3fs")
    quick().fit("s3://bucket/train.zarr")


def too_little_memory(folder: Path, patch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()._replace(available=10)
    patch.setattr(psutil, "virtual_memory", lambda: memory)
    quick().fit(X, Y)


LIMITS = {"tcp://10.0.0.1:4000": 2**30, "tcp://10.0.0.2:4000": 16 * 2**30}
LARGE = Size(parameters=8 * 2**30, frozen=0, data=2**30, least=8 * 2**30)

CASES: dict[str, Case] = {
    "no client": lambda _: daskps.dashboard(),
    "detached": lambda _: quick().fit(X, Y, detach=True),
    "nobody answers": nobody_answers,
    "no dataset": lambda folder: quick().fit(folder / "train.zarr"),
    "no file": lambda folder: daskps.read_svmlight(folder / "train.svm"),
    "no model": lambda folder: daskps.load(folder / "model.zarr"),
    "files, no dataset": files_that_are_no_dataset,
    "model, no dataset": a_model_for_a_dataset,
    "dataset, no model": a_dataset_for_a_model,
    "model taken": a_model_that_is_there,
    "store taken": a_store_that_is_taken,
    "checkpoint taken": an_earlier_checkpoint,
    "no columns": a_table_without_the_columns,
    "kind": lambda _: quick().fit({"a": 1}, Y),
    "no rows": lambda _: quick().fit(X[:0], Y[:0]),
    "labels wide": lambda _: quick().fit(X, X),
    "one dimension": lambda _: quick().fit([1.0, 2.0], [0, 1]),
    "labels too few": lambda _: quick().fit(X, Y[:5]),
    "no labels": lambda _: quick().fit(X),
    "one class": lambda _: quick().fit(X, np.ones(8)),
    "quantities": lambda _: quick().fit(X, np.linspace(0, 1, 8)),
    "not a number": lambda _: quick().fit(np.where(X > 0, np.nan, X), Y),
    "words": lambda _: quick().fit(np.full((8, 1), "red"), Y),
    "column of words": lambda _: quick().fit(pd.DataFrame({"color": ["red"] * 8}), Y),
    "label not a number": lambda _: quick().fit(X, np.where(Y > 0, np.nan, 0.0)),
    "no svmlight": lines_of("a,b\n1,2\n", daskps.read_svmlight),
    "empty file": lines_of("", daskps.read_svmlight),
    "no docword": lines_of("a,b\n1,2\n", daskps.read_docword),
    "other columns": lambda _: quick().fit(X, Y).predict(np.eye(3)),
    "not fitted": lambda _: quick().predict(X),
    "parameter": lambda _: quick(alpha=-1).fit(X, Y),
    "choice": lambda _: quick(solver="sgd").fit(X, Y),
    "resume": lambda _: quick().fit(X, Y, resume=True),
    "callback": lambda _: quick().fit(X, Y, callback=3),
    "negative counts": lambda _: daskps.LatentDirichletAllocation(2).fit(-X),
    "newer dataset": a_dataset_of_the_future,
    "workers too small": lambda _: check_fits(LARGE, LIMITS),
}
PATCHED: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "no matplotlib": no_matplotlib,
    "no pyarrow": no_pyarrow,
    "no s3fs": no_s3fs,
    "memory": too_little_memory,
}
ON_CLUSTERS = ("no Dask worker at", "cannot load daskps", "has daskps", "serves no dashboard")
"""Parts of the errors that need a cluster of their own; the tests below have them."""


def met(name: str, folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Return what is said in a case."""
    folder.mkdir()
    if name in CASES:
        return said_by(lambda: CASES[name](folder))
    with patch.context() as undone:
        return said_by(lambda: PATCHED[name](folder, undone))


def test_every_error_of_the_first_hour_is_on_the_page_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    for number, name in enumerate([*CASES, *PATCHED]):
        seen |= assert_on_page(met(name, tmp_path / str(number), monkeypatch))
    rest = [b for b in blocks() if b not in seen]
    assert len(rest) == len(ON_CLUSTERS)
    assert all(any(re.escape(part) in b for b in rest) for part in ON_CLUSTERS)


def test_parameters_that_may_fit_are_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    check_fits(LARGE, {"a": 4 * 2**30, "b": 4 * 2**30})
    assert "Dask will write data to disk" in caplog.text
    check_fits(LARGE, {"a": 0, "b": 1})  # a worker without a limit says nothing
    check_fits(Size(8 * 2**30, 0, 0, least=0), LIMITS)  # tables that grow may stay small
    check_fits(LARGE, {})
    check_fits(LARGE, LIMITS, ["tcp://10.0.0.2:4000"])  # the small one holds no shard


@pytest.mark.cluster
def test_a_cluster_whose_workers_have_too_little_memory_is_refused_before_it_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"processes": False, "memory_limit": "150 MB"}
    with daskps.local_cluster(1, **options) as found, Client(found):
        monkeypatch.setattr(DaskEngine, "_load", None)  # it must not come to that
        rows = scipy.sparse.csr_array(X[:, :1] @ np.ones((1, 2)))
        rows.resize((8, 20_000_000))
        assert_on_page(said_by(lambda: quick().fit(rows, Y)))


@pytest.mark.cluster
def test_a_cluster_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaskEngine, "patience", 0.2)
    with daskps.local_cluster(0) as found, Client(found):
        assert_on_page(said_by(lambda: quick().fit(X, Y)))


@pytest.mark.cluster
def test_a_scheduler_without_bokeh() -> None:
    with daskps.local_cluster(0, scheduler_kwargs={"dashboard": False}) as found, Client(found):
        assert_on_page(said_by(daskps.dashboard))


STRANGERS = {
    "another version": "import daskps.version; daskps.version.VERSION = '0.0.1'",
    "none at all": "import sys; sys.modules['daskps'] = None",
}
WORKER = "from distributed.cli.dask_worker import main; main()"


@pytest.mark.cluster
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", STRANGERS)
def test_a_worker_with_another_daskps(name: str, tmp_path: Path) -> None:
    with (
        daskps.local_cluster(0) as found,
        Client(found) as client,
    ):
        place = ["--local-directory", str(tmp_path), "--host", "127.0.0.1", "--no-dashboard"]
        code = f"{STRANGERS[name]}\n{WORKER}"
        process = start_python(
            "-c", code, str(found.scheduler_address), "--no-nanny", "--nthreads", "1", *place
        )
        try:
            wait_until(lambda: client.scheduler_info()["workers"])
            assert_on_page(said_by(lambda: quick().fit(X, Y)))
            assert not checks.versions(client).good
            assert not checks.ports(client).good
        finally:
            stop_group(process)
