"""Explicit ratings by LIBMF, cornac, LensKit and Spark: seconds of training and test error.

`benchmarks/mf.py` runs those that are installed. Everybody has two threads and starts from ratings
in its memory, as distances from their mean; each number of iterations is a fit from the beginning,
because most cannot be asked in between. Settings are those that reached the lowest error soonest on
the data of the targets.

LIBMF's package, as it installs, uses neither vectors nor threads. To build it as its authors do::

    FLAGS="-O3 -march=native -DUSEAVX -DUSEOMP -fopenmp"
    CFLAGS=$FLAGS CXXFLAGS=$FLAGS LDFLAGS=-fopenmp pip install --no-binary :all: libmf
"""

from __future__ import annotations

import importlib.util
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks._peers import THREADS
from benchmarks._peers.spark import spark_session

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """One fit from the beginning."""

    iterations: int
    seconds: float
    """Of training; without loading and without what the test ratings took."""
    error: float
    """Root of the mean squared error of the test ratings."""


@dataclass(frozen=True)
class Task:
    """What everybody trains on: columns user, item and rating."""

    train: pd.DataFrame
    test: pd.DataFrame
    n_factors: int

    @property
    def shape(self) -> tuple[int, int]:
        """Users and items."""
        sides = ((self.train[c].max(), self.test[c].max()) for c in ("user", "item"))
        n_users, n_items = (int(max(side)) + 1 for side in sides)
        return n_users, n_items

    def centred(self) -> tuple[F32, float]:
        """Return the training ratings as distances from their mean, and the mean."""
        mean = float(self.train.rating.mean())
        return (self.train.rating - mean).to_numpy(np.float32), mean

    def error(self, P: Any, Q: Any, user_bias: Any = 0.0, item_bias: Any = 0.0) -> float:
        """Return the test error of factors and biases, which the mean is added to."""
        _, mean = self.centred()
        bu = np.broadcast_to(np.asarray(user_bias, np.float64), len(P))
        bi = np.broadcast_to(np.asarray(item_bias, np.float64), len(Q))
        total = 0.0
        for start in range(0, len(self.test), 2**18):
            rows = self.test.iloc[start : start + 2**18]
            u, i = rows.user.to_numpy(), rows["item"].to_numpy()
            found = mean + bu[u] + bi[i] + np.einsum("nk,nk->n", P[u], Q[i])
            total += float(((rows.rating.to_numpy() - found) ** 2).sum())
        return math.sqrt(total / len(self.test))


def libmf(task: Task, stops: Sequence[int]) -> Iterator[Fit]:
    from libmf import mf

    ratings, _ = task.centred()
    X = np.column_stack([task.train.user, task.train["item"], ratings]).astype(np.float32)
    penalties = {"lambda_p1": 0.0, "lambda_q1": 0.0, "lambda_p2": 0.02, "lambda_q2": 0.02}
    how = {"k": task.n_factors, "nr_threads": THREADS, "nr_bins": 20, "eta": 0.1, "quiet": True}
    for iterations in stops:
        model = mf.MF(nr_iters=iterations, **how, **penalties)
        start = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - start
        # its `predict` takes two columns for rows; factors say what was learnt
        P, Q = (np.nan_to_num(rows) for rows in (model.p_factors(), model.q_factors()))
        P, Q = (_grown(rows, n) for rows, n in zip((P, Q), task.shape, strict=True))
        yield Fit(iterations, seconds, task.error(P, Q, model.model.b))


def _grown(rows: F32, n: int) -> F32:
    """Return rows for `n` users or items: those that were never met are average."""
    return np.pad(rows, ((0, n - len(rows)), (0, 0)))


def cornac(task: Task, stops: Sequence[int]) -> Iterator[Fit]:
    from cornac.data import Dataset
    from cornac.models import MF

    ratings, _ = task.centred()
    n_users, n_items = task.shape
    columns = [c.to_numpy(np.int64) for c in (task.train.user, task.train["item"])]
    ids = ({x: x for x in range(n)} for n in (n_users, n_items))
    data = Dataset(n_users, n_items, *ids, (*columns, ratings.astype(np.float64)), seed=1)
    rates = {"learning_rate": 0.02, "lambda_reg": 0.02, "use_bias": True, "verbose": False}
    how = {"k": task.n_factors, "num_threads": THREADS, "backend": "cpu", "seed": 1}
    for iterations in stops:
        model = MF(max_iter=iterations, **how, **rates)
        start = time.perf_counter()
        model.fit(data)
        seconds = time.perf_counter() - start
        factors = model.u_factors, model.i_factors
        yield Fit(iterations, seconds, task.error(*factors, model.u_biases, model.i_biases))


def lenskit(task: Task, stops: Sequence[int]) -> Iterator[Fit]:
    os.environ.setdefault("LK_NUM_THREADS", str(THREADS))
    from lenskit.als import BiasedMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    ratings, _ = task.centred()
    names = {"user": "user_id", "item": "item_id"}
    data = from_interactions_df(task.train.rename(columns=names).assign(rating=ratings))
    for iterations in stops:
        model = BiasedMFScorer(
            embedding_size=task.n_factors, epochs=iterations, regularization=0.02, damping=5
        )
        start = time.perf_counter()
        model.train(data, TrainingOptions(rng=1))
        seconds = time.perf_counter() - start
        users, items = model.users.ids(), model.items.ids()
        sides = zip(
            (users, items),
            (model.user_embeddings, model.item_embeddings),
            (model.bias.user_biases, model.bias.item_biases),
            task.shape,
            strict=True,
        )
        (P, bu), (Q, bi) = (_placed(*side) for side in sides)
        yield Fit(iterations, seconds, task.error(P, Q, bu + model.bias.global_bias, bi))


def _placed(ids: Any, rows: Any, bias: Any, n: int) -> tuple[F32, F32]:
    """Return rows and biases by number of users or items, of which `ids` are known."""
    every, biases = np.zeros((n, rows.shape[1]), np.float32), np.zeros(n, np.float32)
    every[ids], biases[ids] = np.asarray(rows), np.asarray(bias)
    return every, biases


def spark(task: Task, stops: Sequence[int]) -> Iterator[Fit]:
    from pyspark.ml.recommendation import ALS

    ratings, mean = task.centred()
    session = spark_session()
    with tempfile.TemporaryDirectory() as folder:
        task.train.assign(rating=ratings).to_parquet(f"{folder}/train.parquet")
        task.test.assign(rating=task.test.rating - mean).to_parquet(f"{folder}/test.parquet")
        read = session.read.parquet
        rows = read(f"file://{folder}/train.parquet").repartition(2 * THREADS).cache()
        rows.count()
        judged = read(f"file://{folder}/test.parquet")
        columns = {"userCol": "user", "itemCol": "item", "ratingCol": "rating"}
        blocks = {"numUserBlocks": THREADS, "numItemBlocks": THREADS, "seed": 1}
        for iterations in stops:
            als = ALS(rank=task.n_factors, maxIter=iterations, regParam=0.05, **columns, **blocks)
            start = time.perf_counter()
            model = als.fit(rows)
            model.itemFactors.count()
            seconds = time.perf_counter() - start
            found = model.transform(judged).select("rating", "prediction").toPandas().dropna()
            error = math.sqrt(((found.rating - found.prediction) ** 2).mean())
            yield Fit(iterations, seconds, error)
    session.stop()


@dataclass(frozen=True)
class Peer:
    """One of them."""

    name: str
    module: str
    """Must be importable."""
    fits: Callable[[Task, Sequence[int]], Iterator[Fit]]
    stops: tuple[int, ...]
    """Iterations, where no others are asked for."""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return importlib.util.find_spec(self.module) is not None


PEERS = {
    "libmf": Peer("LIBMF", "libmf", libmf, (4, 6, 8)),
    "cornac": Peer("cornac", "cornac", cornac, (2, 8)),
    "lenskit": Peer("LensKit ALS", "lenskit", lenskit, (2,)),
    "spark": Peer("Spark ALS", "pyspark", spark, (3,)),
}
