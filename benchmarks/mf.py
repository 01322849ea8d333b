"""Matrix factorisation on two worker processes: ratings a second, error by time, lists a second.

``python -m benchmarks.mf --train train.npy --test test.npy`` takes structured arrays with the
fields u, i and r. ``--implicit PASSES`` measures implicit feedback beside the package ``implicit``
where that is installed, ``--lists N`` lists of 20 items for N users beside it, ``--spark N...``
Spark's ALS with so many iterations (pyspark, pyarrow and Java).
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from distributed import Client

import daskps
from benchmarks._peers import THREADS
from benchmarks._peers.spark import spark_session
from daskps import MatrixFactorization, read_ratings
from daskps.data import Ratings

K = 20
REG = 1.0


def frame(path: Path, n: int | None = None) -> pd.DataFrame:
    rows = np.load(path, mmap_mode="r")[:n]
    return pd.DataFrame({"user": rows["u"], "item": rows["i"], "rating": rows["r"]})


def explicit(train: Ratings, test: pd.DataFrame, args: argparse.Namespace) -> MatrixFactorization:
    options = {"reg": args.reg, "learning_rate": args.learning_rate, "progress": False}
    held_out = read_ratings(test)
    MatrixFactorization(args.factors, max_iter=2, **options).fit(train)  # compiles
    for passes in args.passes:
        start = time.perf_counter()
        model = MatrixFactorization(args.factors, max_iter=passes, **options).fit(train)
        whole = time.perf_counter() - start
        ends = model.history_.seconds.values.reshape(passes, -1)[:, -1]
        rate = train.n_ratings / np.median(np.diff(ends, prepend=0)) / 1e6
        error = model.rmse(held_out, unknown="popular")
        print(
            f"{passes} passes: fit {whole:.1f} s, training {ends[-1]:.1f} s, "
            f"{rate:.1f} M ratings/s a pass, test RMSE {error:.4f}",
            flush=True,
        )
    return model


def spark(train: pd.DataFrame, test: pd.DataFrame, args: argparse.Namespace) -> None:
    """Time ALS of Spark from data in its memory, as targets of other programs are timed."""
    from pyspark.ml.recommendation import ALS

    mean = train.rating.mean()
    session = spark_session()
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train", train), ("test", test)):
            rows.assign(rating=rows.rating - mean).to_parquet(f"{folder}/{name}.parquet")
        read = session.read.parquet
        rows = read(f"file://{folder}/train.parquet").repartition(2 * THREADS).cache()
        rows.count()
        judged = read(f"file://{folder}/test.parquet")
        columns = {"userCol": "user", "itemCol": "item", "ratingCol": "rating"}
        blocks = {"numUserBlocks": THREADS, "numItemBlocks": THREADS, "seed": 1}
        for iterations in args.spark:
            als = ALS(rank=args.factors, maxIter=iterations, regParam=0.05, **columns, **blocks)
            start = time.perf_counter()
            model = als.fit(rows)
            model.itemFactors.count()
            seconds = time.perf_counter() - start
            found = model.transform(judged).select("rating", "prediction").toPandas().dropna()
            error = float(np.sqrt(((found.rating - found.prediction) ** 2).mean()))
            print(
                f"Spark ALS, {iterations} iterations: {seconds:.1f} s, RMSE {error:.4f}", flush=True
            )
    session.stop()


def objective(X: Any, P: np.ndarray, Q: np.ndarray) -> float:
    """Return the objective of implicit feedback, in float64."""
    P, Q, total = P.astype(float), Q.astype(float), 0.0
    users = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    for start in range(0, X.nnz, 10**6):
        part = slice(start, start + 10**6)
        s = (P[users[part]] * Q[X.indices[part]]).sum(axis=1)
        total += float(((1 + X.data[part]) * (1 - s) ** 2 - s**2).sum())
    return total + float((P.T @ P * (Q.T @ Q)).sum()) + REG * float((P**2).sum() + (Q**2).sum())


def recall(lists: np.ndarray, test: pd.DataFrame, users: np.ndarray) -> float:
    """Return the mean share of each user's held-out items that are in its list."""
    wanted = test.groupby("user")["item"].agg(set)
    pairs = [(set(own), wanted[u]) for u, own in zip(users, lists, strict=True) if u in wanted]
    return float(np.mean([len(own & want) / len(want) for own, want in pairs]))


def counts(train: pd.DataFrame, test: pd.DataFrame, args: argparse.Namespace) -> None:
    shape = (train.user.max() + 1, train["item"].max() + 1)
    values = np.maximum(train.rating.round().to_numpy(np.float32), 1)
    X = sp.csr_array((values, (train.user, train["item"])), shape=shape)
    X.sort_indices()
    settings = {"loss": "implicit", "reg": REG, "confidence": 1.0, "progress": False}
    MatrixFactorization(64, max_iter=1, **settings).fit(X[:2000])  # compiles
    model = MatrixFactorization(64, max_iter=args.implicit, **settings).fit(X)
    ends = model.history_.seconds.values.reshape(args.implicit, -1)[:, -1]
    users = np.arange(min(args.lists, shape[0]))
    found = model.recommend(users[:100], k=K)
    start = time.perf_counter()
    found = model.recommend(users, k=K)
    lists = time.perf_counter() - start
    own = np.split(found["item"].to_numpy(), np.cumsum(found.groupby("user").size())[:-1])
    P, Q = model.user_factors_.values, model.item_factors_.values
    told(np.median(np.diff(ends, prepend=0)), objective(X, P, Q), recall(own, test, users), lists)
    if importlib.util.find_spec("implicit") is None:
        print("implicit is not installed")
        return
    from implicit.als import AlternatingLeastSquares

    how = {"factors": 64, "regularization": REG, "alpha": 1.0, "num_threads": THREADS}
    peer = AlternatingLeastSquares(iterations=args.implicit, use_gpu=False, random_state=0, **how)
    Y = sp.csr_matrix(X)
    Y.data = Y.data + 1  # it takes the confidences themselves, which here are 1 + counts
    start = time.perf_counter()
    peer.fit(Y.copy(), show_progress=False)
    each = (time.perf_counter() - start) / args.implicit
    peer.recommend(users[:100], Y[users[:100]], N=K)
    start = time.perf_counter()
    theirs, _ = peer.recommend(users, Y[users], N=K)
    lists = time.perf_counter() - start
    factors = peer.user_factors, peer.item_factors
    told(each, objective(X, *factors), recall(theirs, test, users), lists, name="implicit")


def told(each: float, value: float, found: float, lists: float, name: str = "daskps") -> None:
    print(
        f"implicit feedback, {name}: {each:.2f} s a pass, objective {value:.6g}, "
        f"recall@{K} {found:.4f}, lists {lists:.2f} s",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--ratings", type=int, default=None, help="only so many of them")
    parser.add_argument("--store", default=None, help="where to write the ratings")
    parser.add_argument("--factors", type=int, default=32)
    parser.add_argument("--reg", type=float, default=0.035)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--passes", type=int, nargs="*", default=[8])
    parser.add_argument("--workers", type=int, default=THREADS)
    parser.add_argument("--implicit", type=int, default=0, help="passes of implicit ALS, k = 64")
    parser.add_argument("--lists", type=int, default=100_000, help="users that get lists")
    parser.add_argument("--spark", type=int, nargs="*", default=[], help="iterations")
    args = parser.parse_args(arguments)
    train, test = frame(args.train, args.ratings), frame(args.test)
    with daskps.local_cluster(n_workers=args.workers) as cluster, Client(cluster):
        if args.passes:
            explicit(read_ratings(train, args.store, overwrite=True), test, args)
        if args.implicit:
            counts(train, test, args)
    if args.spark:
        spark(train, test, args)


if __name__ == "__main__":
    main()
