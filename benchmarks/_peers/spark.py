"""Spark MLlib: L-BFGS on the driver, sums of gradients over 2 threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._peers import THREADS, Method, Point, Settings, Task


def train(task: Task, settings: Settings) -> Iterator[Point]:
    """Fit from the beginning for each number of iterations: it cannot be asked in between."""
    from pyspark.ml.classification import LogisticRegression

    _, judged = task.matrices()
    session = spark_session()
    try:
        reader = session.read.format("libsvm").option("numFeatures", str(task.n_features))
        where = f"file://{_text(task).absolute()}"  # as_uri would write %2B for +
        rows = reader.load(where).repartition(2 * THREADS).cache()
        rows.count()
        clf = LogisticRegression(tol=0, regParam=settings["alpha"], standardization=False)
        clf.setMaxIter(1).fit(rows.limit(1000))  # compiles, outside the clock
        for iterations in task.stops:
            clf.setMaxIter(iterations)
            start = time.perf_counter()
            model = clf.fit(rows)
            seconds = time.perf_counter() - start
            yield Point(seconds, judged @ model.coefficients.toArray() + model.intercept)
    finally:
        session.stop()


def spark_session() -> Any:
    """Return a session on as many threads as every peer has."""
    from pyspark.sql import SparkSession

    options = {
        "spark.driver.memory": "10g",
        "spark.driver.maxResultSize": "4g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master(f"local[{THREADS}]")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _text(task: Task) -> Path:
    """Return the svmlight file, made once; Spark's column ids begin at 1."""
    path = task.folder / f"train-{len(task.train.y)}.libsvm"
    if not path.exists():
        half = path.with_suffix(".part")
        with half.open("w") as file:
            for ids, y in zip(task.train.ids, task.train.y, strict=True):
                file.write(f"{y} " + " ".join(f"{i + 1}:1" for i in ids.tolist()) + "\n")
        half.rename(path)
    return path


METHODS = {
    "Spark MLlib": Method(
        train,
        "pyspark",
        {"alpha": 1.7e-5},
        tuple({"alpha": alpha} for alpha in (3e-6, 1e-5, 1.7e-5, 3e-5)),
        (5, 10, 20),
    )
}
