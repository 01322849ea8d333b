"""Matrix factorisation on two worker processes: ratings a second, error by time, lists a second.

``python -m benchmarks.mf --train train.npy --test test.npy`` takes structured arrays with the
fields u, i and r. ``--peers`` runs LIBMF, cornac, LensKit and Spark's ALS on the same ratings, as
far as they are installed, or those that are named: ``--peers libmf:4,8 spark``. ``--implicit N``
measures N passes of implicit feedback beside the package ``implicit``, ``--seeds N`` with so many
seeds, and ``--lists N`` lists of 20 items for N users beside it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client

import daskps
from benchmarks._mf_implicit import implicit_feedback
from benchmarks._mf_peers import PEERS, Fit, Task
from benchmarks._peers import THREADS
from daskps import MatrixFactorization, read_ratings
from daskps.data import Ratings


def frame(path: Path, n: int | None = None) -> pd.DataFrame:
    rows = np.load(path, mmap_mode="r")[:n]
    return pd.DataFrame({"user": rows["u"], "item": rows["i"], "rating": rows["r"]})


def explicit(train: Ratings, test: pd.DataFrame, args: argparse.Namespace) -> list[Fit]:
    options = {"reg": args.reg, "learning_rate": args.learning_rate, "progress": False}
    held_out = read_ratings(test)
    MatrixFactorization(args.factors, max_iter=2, **options).fit(train)  # compiles
    fits = []
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
        fits.append(Fit(passes, float(ends[-1]), error))
    return fits


def peers(ours: Sequence[Fit], task: Task, names: Sequence[str]) -> None:
    """Run those that are asked for, or all that are installed, and say how far ahead daskps is."""
    for name, _, stops in (word.partition(":") for word in names or PEERS):
        peer = PEERS[name]
        if not peer.installed:
            print(f"{peer.name} is not installed", flush=True)
            continue
        wanted = [int(n) for n in stops.split(",")] if stops else peer.stops
        fits = list(told(peer.name, peer.fits(task, wanted)))
        print(compared(peer.name, fits, ours, len(task.train)), flush=True)


def told(name: str, fits: Iterable[Fit]) -> Iterator[Fit]:
    for fit in fits:
        print(
            f"{name}, {fit.iterations} iterations: {fit.seconds:.1f} s, test RMSE {fit.error:.4f}",
            flush=True,
        )
        yield fit


def compared(name: str, fits: Sequence[Fit], ours: Sequence[Fit], n_ratings: int) -> str:
    """Return a peer's rate, and when daskps was where it got to."""
    first, last = fits[0], fits[-1]
    each = last.seconds / last.iterations
    if len(fits) > 1:  # what is done once before all iterations does not count
        each = (last.seconds - first.seconds) / (last.iterations - first.iterations)
    best = min(fits, key=lambda fit: fit.error)
    own = min((fit.seconds for fit in ours if fit.error <= best.error), default=math.inf)
    text = f"{name}: {n_ratings / each / 1e6:.2f} M ratings/s an iteration; "
    if math.isinf(own):
        return text + f"{best.error:.4f} after {best.seconds:.1f} s, where daskps did not get"
    ahead = f"{best.seconds / own:.1f} x as fast"
    return text + f"{best.error:.4f} after {best.seconds:.1f} s, daskps {own:.1f} s, {ahead}"


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
    parser.add_argument("--seeds", type=int, default=1, help="fits of implicit ALS")
    parser.add_argument("--peers", nargs="*", help="names, perhaps with iterations: libmf:4,8")
    args = parser.parse_args(arguments)
    for word in args.peers or ():
        if word.partition(":")[0] not in PEERS:
            parser.error(f"--peers {word}: expected one of {', '.join(PEERS)}")
    train, test = frame(args.train, args.ratings), frame(args.test)
    ours: list[Fit] = []
    with daskps.local_cluster(n_workers=args.workers) as cluster, Client(cluster):
        if args.passes:
            ours = explicit(read_ratings(train, args.store, overwrite=True), test, args)
        if args.implicit:
            implicit_feedback(train, test, args)
    if args.peers is not None:
        peers(ours, Task(train, test, args.factors), args.peers)


if __name__ == "__main__":
    main()
