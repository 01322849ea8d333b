"""Implicit feedback beside the package ``implicit``: seconds, objective, recall, lists a second.

Ratings are rounded and taken for counts. Recall is that of lists of 20 items for every user who has
test ratings, with its standard error over those users; with several seeds also over those. Two fits
of one package from two seeds differ by 3 % in recall here, more than two packages should. So
``implicit`` also goes on from where daskps is after one pass: what differs then is the algorithm.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks._peers import THREADS
from daskps import MatrixFactorization

K = 20
REG = 1.0
FACTORS = 64


@dataclass(frozen=True)
class Found:
    """What one fit came to."""

    each: float
    """Seconds a pass."""
    objective: float
    recalls: NDArray[np.float64]
    """Of each user with test ratings."""
    lists: float
    """Seconds for the lists that are timed."""

    def told(self, name: str, seed: int) -> None:
        recall, error = self.recalls.mean(), standard_error(self.recalls)
        print(
            f"implicit feedback, {name}, seed {seed}: {self.each:.2f} s a pass, objective "
            f"{self.objective:.6g}, recall@{K} {recall:.6f} (standard error {error:.6f}, "
            f"{len(self.recalls):,} users), lists {self.lists:.2f} s",
            flush=True,
        )


class Judge:
    """Measures a fit on counts.

    Parameters
    ----------
    X
        Counts, users x items.
    test
        Held-out pairs.
    n_lists
        Users whose lists are timed.
    """

    def __init__(self, X: Any, test: pd.DataFrame, n_lists: int) -> None:
        self.X = X
        self._n_lists = min(n_lists, X.shape[0])
        test = test[(test.user < X.shape[0]) & (test["item"] < X.shape[1])]
        self._wanted = np.unique(self._keys(test.user.to_numpy(), test["item"].to_numpy()))
        self._sizes = np.bincount(self._wanted // X.shape[1], minlength=X.shape[0])

    @property
    def timed(self) -> NDArray[np.int64]:
        """Users whose lists are timed."""
        return np.arange(self._n_lists)

    @property
    def others(self) -> NDArray[np.int64]:
        """All others who have test ratings."""
        return np.flatnonzero(self._sizes[self._n_lists :]) + self._n_lists

    def recalls(self, users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float64]:
        """Return the share of each user's test items that are in its list, by user."""
        hit = np.isin(self._keys(users, items), self._wanted)
        hits = np.bincount(users, hit, self.X.shape[0])
        judged = self._sizes > 0
        return hits[judged] / self._sizes[judged]

    def objective(self, P: NDArray[Any], Q: NDArray[Any]) -> float:
        """Return the objective, in float64."""
        P, Q, total = P.astype(float), Q.astype(float), 0.0
        users = np.repeat(np.arange(self.X.shape[0]), np.diff(self.X.indptr))
        for start in range(0, self.X.nnz, 10**6):
            part = slice(start, start + 10**6)
            s = (P[users[part]] * Q[self.X.indices[part]]).sum(axis=1)
            total += float(((1 + self.X.data[part]) * (1 - s) ** 2 - s**2).sum())
        squares = float((P**2).sum() + (Q**2).sum())
        return total + float((P.T @ P * (Q.T @ Q)).sum()) + REG * squares

    def _keys(self, users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.int64]:
        keys: NDArray[np.int64] = users.astype(np.int64) * self.X.shape[1] + items
        return keys


def trained(X: Any, passes: int, seed: int) -> MatrixFactorization:
    """Return what daskps has after some passes."""
    settings = {"loss": "implicit", "reg": REG, "confidence": 1.0, "progress": False}
    return MatrixFactorization(FACTORS, max_iter=passes, random_state=seed, **settings).fit(X)


def ours(judge: Judge, passes: int, seed: int) -> Found:
    trained(judge.X[:2000], 1, seed)  # compiles
    model = trained(judge.X, passes, seed)
    ends = model.history_.seconds.values.reshape(passes, -1)[:, -1]
    model.recommend(judge.timed[:100], k=K)
    start = time.perf_counter()
    lists = [model.recommend(judge.timed, k=K)]
    seconds = time.perf_counter() - start
    lists.append(model.recommend(judge.others, k=K))
    of = pd.concat(lists)
    return Found(
        float(np.median(np.diff(ends, prepend=0))),
        judge.objective(model.user_factors_.values, model.item_factors_.values),
        judge.recalls(of.user.to_numpy(), of["item"].to_numpy()),
        seconds,
    )


def peer(judge: Judge, passes: int, seed: int, first: MatrixFactorization | None = None) -> Found:
    """Fit ``implicit``, from its own start or from where `first` is after one pass."""
    from implicit.als import AlternatingLeastSquares

    how = {"factors": FACTORS, "regularization": REG, "alpha": 1.0, "num_threads": THREADS}
    passes -= first is not None
    model = AlternatingLeastSquares(iterations=passes, use_gpu=False, random_state=seed, **how)
    Y = sp.csr_matrix(judge.X)
    Y.data = Y.data + 1  # it takes the confidences themselves, which here are 1 + counts
    # a pass of daskps ends with users, one of implicit with items: to it, users are items
    weights = Y.copy() if first is None else Y.T.tocsr()
    if first is not None:
        model.user_factors = first.item_factors_.values.astype(np.float32)
        model.item_factors = first.user_factors_.values.astype(np.float32)
    start = time.perf_counter()
    model.fit(weights, show_progress=False)
    each = (time.perf_counter() - start) / passes
    if first is not None:
        model.user_factors, model.item_factors = model.item_factors, model.user_factors
    users, rest = judge.timed, judge.others
    model.recommend(users[:100], Y[users[:100]], N=K)
    start = time.perf_counter()
    first, _ = model.recommend(users, Y[users], N=K)
    seconds = time.perf_counter() - start
    second, _ = model.recommend(rest, Y[rest], N=K) if len(rest) else (first[:0], None)
    items = np.concatenate([first, second]).ravel()
    return Found(
        each,
        judge.objective(model.user_factors, model.item_factors),
        judge.recalls(np.repeat(np.concatenate([users, rest]), K), items),
        seconds,
    )


def standard_error(x: Any) -> float:
    return float(np.std(x, ddof=1) / len(x) ** 0.5) if len(x) > 1 else float("nan")


def compared(own: list[Found], theirs: list[Found], name: str) -> None:
    """Print how far apart both are up to here, and how much of that is chance."""
    means = [np.mean([f.recalls for f in found], axis=0) for found in (own, theirs)]
    recall = means[1].mean()
    apart = (means[0].mean() / recall - 1) * 100
    users = standard_error(means[0] - means[1]) / recall * 100
    text = f"recall@{K} {apart:+.2f} % of that of {name} (standard error over users {users:.2f} %"
    if len(own) > 1:
        seeds = [standard_error([f.recalls.mean() for f in found]) for found in (own, theirs)]
        text += f", over seeds {np.hypot(*seeds) / recall * 100:.2f} %"
    objectives = [np.mean([f.objective for f in found]) for found in (own, theirs)]
    rates = [np.median([f.each for f in found]) for found in (own, theirs)]
    lists = [np.median([f.lists for f in found]) for found in (own, theirs)]
    print(f"objective {(objectives[0] / objectives[1] - 1) * 100:+.3f} %, {text})")
    speed = f"seconds a pass {rates[0] / rates[1]:.2f} x, for lists {lists[0] / lists[1]:.2f} x"
    print(speed, flush=True)


def implicit_feedback(train: pd.DataFrame, test: pd.DataFrame, args: argparse.Namespace) -> None:
    """Measure both, a fit for each seed."""
    shape = (train.user.max() + 1, train["item"].max() + 1)
    values = np.maximum(train.rating.round().to_numpy(np.float32), 1)
    X = sp.csr_array((values, (train.user, train["item"])), shape=shape)
    X.sort_indices()
    judge = Judge(X, test, args.lists)
    there = importlib.util.find_spec("implicit") is not None
    own: list[Found] = []
    theirs: dict[str, list[Found]] = {"implicit": []}
    if args.implicit > 1:
        theirs["implicit, same start"] = []
    for seed in range(args.seeds):
        own.append(ours(judge, args.implicit, seed))
        own[-1].told("daskps", seed)
        for name, found in theirs.items() if there else ():
            first = trained(X, 1, seed) if name != "implicit" else None
            found.append(peer(judge, args.implicit, seed, first))
            found[-1].told(name, seed)
            compared(own, found, name)
    if not there:
        print("implicit is not installed")
