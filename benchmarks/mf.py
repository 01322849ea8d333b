"""Matrix factorisation on two worker processes: ratings a second, error by time, lists a second.

``python benchmarks/mf.py --train train.npy --test test.npy`` takes structured arrays with the
fields u, i and r. ``implicit`` is measured beside it where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from distributed import Client

import daskps
from daskps import MatrixFactorization, read_ratings


def frame(path: str) -> pd.DataFrame:
    rows = np.load(path)
    return pd.DataFrame({"user": rows["u"], "item": rows["i"], "rating": rows["r"]})


def explicit(train: Any, test: pd.DataFrame, args: argparse.Namespace) -> MatrixFactorization:
    options = {"reg": args.reg, "learning_rate": args.learning_rate}
    MatrixFactorization(args.factors, max_iter=2, **options).fit(train)  # compiles
    for passes in args.passes:
        start = time.perf_counter()
        model = MatrixFactorization(args.factors, max_iter=passes, **options).fit(train)
        whole = time.perf_counter() - start
        ends = model.history_.seconds.values.reshape(passes, -1)[:, -1]
        rate = train.n_ratings / np.median(np.diff(ends, prepend=0)) / 1e6
        error = model.rmse(test, unknown="popular")
        print(
            f"{passes} passes: fit {whole:.1f} s, training {ends[-1]:.1f} s, "
            f"{rate:.1f} M ratings/s a pass, test RMSE {error:.4f}",
            flush=True,
        )
    return model


def lists(model: MatrixFactorization, n: int) -> None:
    users = model.user_factors_.user.values[:n]
    model.recommend(users[:100], k=20)
    start = time.perf_counter()
    model.recommend(users, k=20)
    print(f"lists of 20 for {len(users)} users: {time.perf_counter() - start:.1f} s", flush=True)


def counts(train: pd.DataFrame, factors: int, passes: int) -> None:
    shape = (train.user.max() + 1, train["item"].max() + 1)
    values = np.maximum(train.rating.round().to_numpy(np.float32), 1)
    X = sp.csr_array((values, (train.user, train["item"])), shape=shape)
    start = time.perf_counter()
    model = MatrixFactorization(factors, loss="implicit", reg=1.0, max_iter=passes).fit(X)
    ends = model.history_.seconds.values.reshape(passes, -1)[:, -1]
    each = np.median(np.diff(ends, prepend=0))
    objective = float(model.history_.objective[-1]) * X.nnz
    print(f"implicit ALS: {each:.1f} s a pass, objective {objective:.6g}", flush=True)
    if importlib.util.find_spec("implicit") is None:
        print("implicit is not installed")
        return
    from implicit.als import AlternatingLeastSquares

    settings = {"factors": factors, "regularization": 1.0, "alpha": 1.0, "num_threads": 2}
    peer = AlternatingLeastSquares(iterations=passes, use_gpu=False, random_state=0, **settings)
    start = time.perf_counter()
    peer.fit(sp.csr_matrix(X), show_progress=False)
    print(f"implicit: {(time.perf_counter() - start) / passes:.1f} s a pass", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--store", default=None, help="where to write the ratings")
    parser.add_argument("--factors", type=int, default=32)
    parser.add_argument("--reg", type=float, default=0.035)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--passes", type=int, nargs="+", default=[8])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--implicit", type=int, default=0, help="passes of implicit ALS, k = 64")
    args = parser.parse_args()
    train, test = frame(args.train), frame(args.test)
    ratings = read_ratings(train, args.store, overwrite=True)
    with daskps.local_cluster(n_workers=args.workers) as cluster, Client(cluster):
        model = explicit(ratings, test, args)
        lists(model, 100_000)
        if args.implicit:
            counts(train, 64, args.implicit)


if __name__ == "__main__":
    main()
