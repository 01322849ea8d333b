"""How to merge what concurrent partitions learnt: sum, average, response, and daskps' own rule.

Simulates partitions that work at the same time, in one process, with the kernels and updaters of
the package, and prints the test log-loss after each pass. Rules::

    sum       add the changes of the weights
    average   add them and divide by the number of partitions
    response  weigh each coordinate by 1 - exp(-occurrences x step)
    ours      what daskps does: docs/explanation/merging.md

Run it from the project's root::

    python -m benchmarks.merge                       # small data, generated; half a minute
    python -m benchmarks.merge --data DIR            # train_idx.npy (n, k), train_y.npy, test_*
    python -m benchmarks.merge --svmlight a9a a9a.t --alpha 3e-5
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from daskps.kernels import linear
from daskps.kernels.linear import STATE_FIELDS, Rows, Rule
from daskps.server.updaters import FTRL, AdaGrad

F32 = NDArray[np.float32]
RULES = ("sum", "average", "response", "ours")


class Data(NamedTuple):
    """Training and test rows over the same features."""

    train: Rows
    test: Rows
    n_features: int


class Tables(NamedTuple):
    """One array for the keys, one for the intercept."""

    keys: F32
    bias: F32


def n_rows(rows: Rows) -> int:
    return len(rows.indptr) - 1


def from_directory(path: Path) -> Data:
    def rows(name: str) -> Rows:
        ids, y = np.load(path / f"{name}_idx.npy"), np.load(path / f"{name}_y.npy")
        edges = np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1]
        return Rows(edges, ids.astype(np.uint32).ravel(), None, y.astype(np.float32), None)

    train, test = rows("train"), rows("test")
    return Data(train, test, int(max(train.indices.max(), test.indices.max())) + 1)


def from_svmlight(paths: list[str]) -> Data:
    from sklearn.datasets import load_svmlight_files

    X, y, X_test, y_test = load_svmlight_files(paths)
    order = np.random.default_rng(0).permutation(len(y))

    def rows(X, y) -> Rows:
        arrays = X.indptr.astype(np.int64), X.indices.astype(np.uint32), X.data.astype(np.float32)
        return Rows(*arrays, (y > 0).astype(np.float32), None)

    return Data(rows(X[order], y[order]), rows(X_test, y_test), X.shape[1])


def generated(n: int = 100_000, fields: int = 20, per_field: int = 2500, seed: int = 7) -> Data:
    """One-hot fields with Zipf(1.1) frequencies; a fifth of the features matter."""
    rng = np.random.default_rng(seed)
    d = fields * per_field
    w = np.where(rng.random(d) < 0.2, rng.normal(0, 0.75, d), 0)
    share = np.arange(1, per_field + 1) ** -1.1

    def rows(n: int) -> Rows:
        ids = rng.choice(per_field, (n, fields), p=share / share.sum())
        ids += np.arange(fields) * per_field
        y = rng.random(n) < 1 / (1 + np.exp(1.4 - w[ids].sum(1)))
        edges = np.arange(n + 1, dtype=np.int64) * fields
        return Rows(edges, ids.astype(np.uint32).ravel(), None, y.astype(np.float32), None)

    return Data(rows(n), rows(n // 4), d)


class Simulation:
    """Tables, and partitions that work on snapshots of them."""

    def __init__(self, data: Data, rule: str, updater: AdaGrad | FTRL) -> None:
        self.data, self.rule = data, rule
        self.updaters = updater, replace(updater, alpha=0.0)
        l2, l1 = updater.alpha * (1 - updater.l1_ratio), updater.alpha * updater.l1_ratio
        ftrl = isinstance(updater, FTRL)
        kappa = 0.0 if isinstance(updater, FTRL) else updater.kappa
        step = Rule(ftrl, updater.eta, updater.beta, l2, l1, kappa)
        self.steps = step, step.unpenalised()
        self.rows = self.empty(updater.n_fields)
        for u, rows in zip(self.updaters, self.rows, strict=True):
            u.init(rows, np.zeros((len(rows), 1), np.float32))
        self.state = self.empty(STATE_FIELDS)
        self.T = 0

    def empty(self, fields: int) -> Tables:
        """Return zeros of `fields` numbers for each key and the intercept."""
        sizes = self.data.n_features, 1
        return Tables(*(np.zeros((m, fields, 1), np.float32) for m in sizes))

    def pull(self) -> Tables:
        """Return a snapshot."""
        out = self.empty(self.updaters[0].n_pull)
        for u, rows, o in zip(self.updaters, self.rows, out, strict=True):
            u.pull(rows, self.T, o)
        return out

    def work(self, pulled: Tables, start: int, stop: int, T_end: int) -> Tables:
        """Take a slice from snapshot to push, as a task does."""
        for step, p, s in zip(self.steps, pulled, self.state, strict=True):
            linear.begin(step, p, T_end, s)
        own, train = self.rule == "ours", self.data.train
        linear.train(self.steps[0], train, start, stop, *self.state, T_end, settle_intercept=own)
        push = self.empty(self.updaters[0].n_push)
        for step, p, s, o in zip(self.steps, pulled, self.state, push, strict=True):
            linear.end(step, p, s, T_end, o)
        if self.rule == "response":
            self.count(push, start, stop)
        return push

    def count(self, push: Tables, start: int, stop: int) -> None:
        """Replace the measured response by occurrences x step."""
        edges = self.data.train.indptr
        ids = self.data.train.indices[edges[start] : edges[stop]]
        occurrences = np.bincount(ids, minlength=self.data.n_features)
        eta, beta = self.steps[0].eta, self.steps[0].beta
        for o, s, seen in zip(push, self.state, (occurrences, [stop - start]), strict=True):
            o[:, 2, 0] = np.asarray(seen) * eta / (beta + np.sqrt(s[:, 1, 0]))

    def weigh(self, pushes: list[Tables]) -> None:
        """Do the rules that are not the shard's: weigh the changes, and leave it to add them."""
        for table in zip(*pushes, strict=True):
            factor: F32 | float = 1.0 if self.rule == "sum" else 1 / len(table)
            if self.rule == "response":
                lam = np.maximum([push[:, 2] for push in table], 1e-6)
                factor = -np.expm1(-lam.sum(0)) / -np.expm1(-lam).sum(0)
            for push in table:
                push[:, 0] *= factor / (1 + push[:, 2])
                push[:, 2] = 0

    def together(self, slices: list[tuple[int, int]]) -> None:
        """BSP: all slices start from one snapshot and merge at the barrier."""
        R = sum(stop - start for start, stop in slices)
        pulled = self.pull()
        pushes = [self.work(pulled, *s, self.T + R) for s in slices]
        if self.rule != "ours":
            self.weigh(pushes)
        acc = self.empty(self.updaters[0].n_push)
        for t, u in enumerate(self.updaters):
            for push in pushes:
                acc[t] += push[t]
            u.commit(self.rows[t], None, acc[t], self.T, R)
        self.T += R

    def arriving(self, slices: list[tuple[int, int]], snapshots: dict[int, Tables]) -> None:
        """ASP: each push merges on arrival and its partition pulls again."""
        for k, (start, stop) in enumerate(slices):
            R = stop - start
            push = self.work(snapshots.get(k) or self.pull(), start, stop, self.T + R)
            if self.rule != "ours":
                self.weigh([push])
            for u, rows, p in zip(self.updaters, self.rows, push, strict=True):
                u.apply(rows, None, p, self.T, R)
            self.T += R
            snapshots[k] = self.pull()

    def test_loss(self) -> float:
        """Return the mean log-loss of the test rows."""
        w, b = (u.values(rows, self.T) for u, rows in zip(self.updaters, self.rows, strict=True))
        t = self.data.test
        return linear.total_loss(linear.LOG_LOSS, linear.decision(*t[:3], w, b[0]), t.y) / n_rows(t)


def slices(n: int, partitions: int, rows: int) -> Iterator[list[tuple[int, int]]]:
    """Yield, for every clock of a pass, the slice of each partition."""
    edges = np.linspace(0, n, partitions + 1).astype(int).tolist()
    for at in range(0, max(np.diff(edges)), rows):
        ranges = itertools.pairwise(edges)
        yield [(a + at, min(a + at + rows, b)) for a, b in ranges if a + at < b]


def simulate(sim: Simulation, partitions: int, rows: int, passes: int, mode: str) -> list[float]:
    losses, snapshots = [], {k: sim.pull() for k in range(partitions if mode == "asp" else 0)}
    for _ in range(passes):
        for clock in slices(n_rows(sim.data.train), partitions, rows):
            if mode == "asp":
                sim.arriving(clock, snapshots)
            else:
                sim.together(clock)
        losses.append(sim.test_loss())
    return losses


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="directory of train_idx.npy and its companions")
    parser.add_argument("--svmlight", nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--solver", choices=("adagrad", "ftrl"), default="ftrl")
    parser.add_argument("--modes", nargs="+", choices=("bsp", "asp"), default=["bsp", "asp"])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--partitions", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--clocks", nargs="+", type=int, help="a pass; default: as daskps chooses")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--alpha", type=float, default=1e-5)
    parser.add_argument("--eta", type=float, default=0.1)
    return parser.parse_args()


def main() -> None:
    a = arguments()
    if a.svmlight:
        data = from_svmlight(a.svmlight)
    else:
        data = from_directory(a.data) if a.data else generated()
    n, kind = n_rows(data.train), FTRL if a.solver == "ftrl" else AdaGrad
    jobs = [("bsp", 1, n, "ours")]
    for mode in a.modes:
        for P in a.partitions:
            largest = -(-n // P)
            sizes = [-(-largest // c) for c in a.clocks or ()]
            for rows in sizes or [linear.rows_per_clock(largest, P)]:
                # One push at a time has nothing to be averaged with.
                rules = [r for r in a.rules if mode == "bsp" or r in ("sum", "ours")]
                jobs += [(mode, P, rows, rule) for rule in rules]
    print(f"{a.solver}, {n:,} rows, test log-loss by pass")
    for mode, P, rows, rule in jobs:
        start = time.perf_counter()
        sim = Simulation(data, rule, kind(eta=a.eta, alpha=a.alpha, discount=mode == "asp"))
        with np.errstate(over="ignore", invalid="ignore"):
            losses = simulate(sim, P, rows, a.passes, mode)
        text = "  ".join(f"{x:.4f}" for x in losses)
        seconds = time.perf_counter() - start
        print(f"{mode}  {P:3d} x {rows:<9,} {rule:9s} {text}   ({seconds:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
