"""Train on a two-process cluster, kill one process in the middle, and compare.

Run by `make demo`, or `python examples/demo.py [--data file.svm] [--out folder]`. Without a file,
the data are the docstrings of the scientific packages that daskps comes with, and the task is to
tell the package from the words. Ends with code 1 if training did not recover to the same bits.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import logging
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from rich.console import Console
from rich.table import Table
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression as ScikitLogisticRegression
from sklearn.metrics import log_loss

import daskps

PACKAGES = ["dask", "distributed", "numba", "numpy", "pandas", "scipy", "sklearn", "xarray", "zarr"]
PER_PACKAGE = 700
"""Docstrings of a package; a few more, as files are read whole."""
MIN_WORDS = 10
CLOCKS_PER_PASS = 4
PASSES = 10
ALPHA = {"text": 1e-5, "file": 1e-4}
MOST_FOR_REFERENCE = 20_000_000
"""Non-zeros above which scikit-learn would take minutes."""

console = Console(highlight=False, soft_wrap=True)


# -- data ----------------------------------------------------------------------------------------


def docstrings_of(node: Any) -> Iterator[str]:
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from docstrings_of(child)


def sources_of(package: str) -> list[Path]:
    """Return the source files of an installed package, shuffled; nothing of it is imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    files = [f for f in sorted(Path(spec.origin).parent.rglob("*.py")) if "tests" not in f.parts]
    random.Random(0).shuffle(files)
    return files


def docstrings_in(package: str) -> list[str]:
    """Return docstrings of a package from its source files."""
    found: dict[str, None] = {}
    for file in sources_of(package):
        try:
            texts = docstrings_of(ast.parse(file.read_bytes()))
            found.update((t, None) for t in texts if len(t.split()) >= MIN_WORDS)
        except (SyntaxError, ValueError, OSError):
            continue  # a template, or written for another Python
        if len(found) >= PER_PACKAGE:
            break
    return list(found)


def ingest_docstrings(store: Path) -> daskps.Dataset:
    """Make a row of every distinct docstring: damped counts of words and word pairs, of norm 1."""
    owner: dict[str, str] = {}
    for package in PACKAGES:
        for text in docstrings_in(package):
            owner.setdefault(" ".join(text.lower().split()), package)  # no text comes twice
    names = re.compile(rf"\b({'|'.join(PACKAGES)}|da|np|pd|sp|xr|scikit|learn)\b")
    counter = TfidfVectorizer(
        preprocessor=lambda text: names.sub(" ", text),  # a name would give it away
        ngram_range=(1, 2),
        min_df=3,
        sublinear_tf=True,
        use_idf=False,
        dtype=np.float32,
    )
    X = counter.fit_transform(owner)
    words = counter.get_feature_names_out().tolist()
    return daskps.from_arrays(X, list(owner.values()), store, feature_names=words, overwrite=True)


def ingest(file: Path | None, store: Path) -> daskps.Dataset:
    if file is None:
        return ingest_docstrings(store)
    dataset = daskps.read_svmlight(file, store, overwrite=True)
    counted = dataset.label_counts()
    if counted is None or 5 * len(counted[0]) > dataset.n_rows:
        n = "more than 10,000" if counted is None else f"{len(counted[0]):,}"
        raise daskps.errors.DataError(
            f"{str(file)!r} has {n} distinct labels in {dataset.n_rows:,} rows, which looks like a "
            "quantity; this demo needs classes, with 5 rows or more each on average."
        )
    return dataset


def in_memory(dataset: daskps.Dataset) -> tuple[sparse.csr_array, np.ndarray]:
    """Return the very rows of a dataset for scikit-learn."""
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    return sparse.vstack([p.to_scipy() for p in parts]), np.concatenate([p.label for p in parts])


# -- training ------------------------------------------------------------------------------------


@dataclass
class Kill:
    """Kills process `pid` once clock `at` is over, and notes how training goes on."""

    pid: int
    at: int
    time: float | None = None
    back_to: int | None = None
    seconds: float = 0.0
    """From the kill to the next clock that was finished."""

    def __call__(self, clock: int, loss: float) -> None:
        """Take a clock that every partition has finished, and its loss."""
        if self.time is None and clock >= self.at:
            os.kill(self.pid, signal.SIGKILL)
            self.time = time.perf_counter()
            console.print(f"[red]kill -9 {self.pid}[/red] after clock {clock}: a worker is gone")
        elif self.time is not None and self.back_to is None:
            self.back_to, self.seconds = clock - 1, time.perf_counter() - self.time


@dataclass
class Result:
    """A row of the table at the end."""

    name: str
    accuracy: float
    loss: float
    seconds: float


def estimator(train: daskps.Dataset, alpha: float, **more: Any) -> daskps.LogisticRegression:
    rows = -(-int(train.partition_rows.max()) // CLOCKS_PER_PASS)
    options = {"max_iter": PASSES, "tol": None, "rows_per_clock": rows, "progress": True}
    return daskps.LogisticRegression(alpha=alpha, **options, **more)


def fit(
    name: str, clf: daskps.LogisticRegression, train: Any, test: Any, callback: Any = None
) -> Result:
    start = time.perf_counter()
    clf.fit(train, callback=callback)
    seconds = time.perf_counter() - start
    return Result(name, clf.score(test), clf.log_loss(test), seconds)


def fit_reference(train: daskps.Dataset, test: daskps.Dataset, alpha: float) -> Result | None:
    """Minimise the same objective with scikit-learn; None if that would take minutes."""
    if train.nnz > MOST_FOR_REFERENCE:
        return None
    X, y = in_memory(train)
    start = time.perf_counter()
    clf = ScikitLogisticRegression(C=1 / (alpha * len(y)), max_iter=500, tol=1e-3).fit(X, y)
    seconds = time.perf_counter() - start
    X_test, y_test = in_memory(test)
    loss = log_loss(y_test, clf.predict_proba(X_test), labels=clf.classes_)
    return Result("scikit-learn", clf.score(X_test, y_test), loss, seconds)


def same_bits(a: daskps.LogisticRegression, b: daskps.LogisticRegression) -> bool:
    pairs = [(a.coef_, b.coef_), (a.intercept_, b.intercept_)]
    return all(x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


# -- what is shown -------------------------------------------------------------------------------


def show_results(results: Sequence[Result]) -> None:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("")
    for column in ("test accuracy", "test log-loss", "seconds"):
        table.add_column(column, justify="right")
    for r in results:
        table.add_row(r.name, f"{r.accuracy:.4f}", f"{r.loss:.4f}", f"{r.seconds:.1f}")
    console.print(table)


def show_words(clf: daskps.LogisticRegression, words: np.ndarray) -> None:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("class")
    table.add_column("words that speak for it most")
    for name, weights in zip(clf.classes_, clf.coef_, strict=True):
        top = np.argsort(weights)[:-6:-1]
        table.add_row(str(name), ", ".join(words[top]))
    console.print(table)


def step(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def run(file: Path | None, out: Path) -> bool:
    """Return whether training survived the kill to the same bits."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "checkpoint.zarr", ignore_errors=True)
    # Dask would report the loss at length too; what training cannot survive, fit raises
    quiet = {"silence_logs": logging.CRITICAL}
    with daskps.local_cluster(n_workers=2, **quiet) as cluster, Client(cluster) as client:
        step("A cluster of 2 worker processes")
        console.print(f"dashboard  {client.dashboard_link}")

        step(f"Data: {'docstrings of installed packages' if file is None else file}")
        dataset = ingest(file, out / "data.zarr")
        train, test = dataset.split(0.8)
        n_classes = len(dataset.label_counts()[0])
        console.print(
            f"{dataset.n_rows:,} rows, {dataset.n_features:,} features, {dataset.nnz:,} non-zeros, "
            f"{n_classes} classes, {dataset.n_partitions} partitions in {out / 'data.zarr'}\n"
            f"{train.n_rows:,} rows to train on, {test.n_rows:,} to test"
        )

        step("Training, and one of the two processes is killed half-way")
        pid = sorted(client.run(os.getpid).values())[0]
        kill = Kill(pid, at=PASSES * CLOCKS_PER_PASS // 2 + 1)
        alpha = ALPHA["text" if file is None else "file"]
        killed = estimator(train, alpha, checkpoint=out / "checkpoint.zarr")
        results = [fit("daskps, one process killed", killed, train, test, kill)]
        if kill.back_to is None:
            console.print("[red]the process was not killed: training was over too soon[/red]")
            return False
        console.print(
            f"recovered: back at clock {kill.back_to} of {kill.at}, and the next clock was done "
            f"{kill.seconds:.1f} s after the kill"
        )

        step("Training again, nothing is killed")
        calm = estimator(train, alpha)
        results.append(fit("daskps, nothing killed", calm, train, test))

    step("The same split and objective, C = 1 / (alpha N), with scikit-learn in one process")
    reference = fit_reference(train, test, alpha)
    results += [] if reference is None else [reference]
    show_results(results)
    same = same_bits(killed, calm)
    verdict = "[green]yes[/green]" if same else "[red]no[/red]"
    console.print(f"\nthe killed and the calm run gave the same model, bit for bit: {verdict}")
    if dataset.feature_names is not None:
        console.print()
        show_words(killed, dataset.feature_names)

    killed.save(out / "model.zarr", overwrite=True)
    step(f"The model is in {out / 'model.zarr'}; open it with")
    console.print(f"  python -c 'import xarray; print(xarray.open_zarr(\"{out / 'model.zarr'}\"))'")
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="svmlight file with classes as labels")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder to write to")
    arguments = parser.parse_args()
    start = time.perf_counter()
    try:
        survived = run(arguments.data, arguments.out)
    except (daskps.errors.DaskpsError, FileNotFoundError) as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}")
        return 2
    console.print(f"\n{time.perf_counter() - start:.0f} s in all")
    return 0 if survived else 1


if __name__ == "__main__":
    sys.exit(main())
