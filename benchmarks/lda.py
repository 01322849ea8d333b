"""Topics beside tomotopy, gensim, scikit-learn and Spark: tokens a second, perplexity by seconds.

All have the same documents in memory, 2 threads or worker processes, and the same priors; loading,
compilation and evaluation are outside the clock. All topics are scored by the same code: document
completion as of `LatentDirichletAllocation.perplexity`, alpha 10 / K. Run it from the project's
root, on a machine that does nothing else; peers that are not installed are left out::

    python -m benchmarks.lda                                   # synthetic, a few minutes
    python -m benchmarks.lda --docword docword.kos.txt.gz --topics 100 1000 --plot lda.png
    python -m benchmarks.lda --only daskps --topics 100 1000 10000 --repeats 5
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Client
from rich.console import Console
from rich.table import Table

import daskps
from benchmarks._documents import Documents, from_docword, perplexity, synthetic
from benchmarks._lda_peers import ETA, PASSES, PEERS, WORKERS, Method, Point

Report = dict[str, Any]
console = Console(soft_wrap=True)


def daskps_points(data: Documents, K: int, sweeps: Sequence[int]) -> list[Point]:
    """Fit anew for each number of sweeps: a longer fit begins as a shorter one."""
    points = []
    for n in [1, *sweeps]:  # the first compiles
        model = daskps.LatentDirichletAllocation(
            K, doc_topic_prior=10 / K, topic_word_prior=ETA, max_iter=n, progress=False
        ).fit(data.train)
        phi = model.components_.to_numpy()
        seconds = float(model.history_.seconds[-1])
        points.append((model.n_iter_, seconds, perplexity(phi, data)))
    return points[1:]


def online_points(data: Documents, K: int, sweeps: Sequence[int]) -> list[Point]:
    """``solver="online"``: what the peers that are no Gibbs samplers do."""
    points = []
    for n in (1, *PASSES):  # the first compiles
        model = daskps.LatentDirichletAllocation(
            K,
            doc_topic_prior=10 / K,
            topic_word_prior=ETA,
            solver="online",
            batch_size=512,
            max_iter=n,
            progress=False,
        ).fit(data.train)
        seconds = float(model.history_.seconds[-1])
        points.append((model.n_iter_, seconds, perplexity(model.components_.to_numpy(), data)))
    return points[1:]


METHODS: dict[str, tuple[str, Method]] = {
    "daskps": ("daskps", daskps_points),
    "daskps online": ("daskps", online_points),
    **PEERS,
}


def measure(data: Documents, K: int, sweeps: Sequence[int], only: Sequence[str]) -> list[Report]:
    tokens = float(data.train.sum())
    rows = []
    for name in only:
        module, method = METHODS[name]
        if importlib.util.find_spec(module) is None:
            console.print(f"{name} is not installed")
            continue
        points = method(data, K, sweeps)
        n, seconds, _ = points[-1]
        rows.append({"name": name, "K": K, "tokens_per_s": tokens * n / seconds, "points": points})
        show(rows[-1:])
    return rows


def show(rows: Sequence[Report]) -> None:
    table = Table("method", "K", "million tokens/s", "sweeps: seconds -> perplexity")
    for row in rows:
        curve = ", ".join(f"{n:g}: {s:.2f} -> {p:.0f}" for n, s, p in row["points"])
        table.add_row(row["name"], str(row["K"]), f"{row['tokens_per_s'] / 1e6:.2f}", curve)
    console.print(table)


def medians(rows: Sequence[Report]) -> None:
    """Print the speed of each method: processors that are shared differ from minute to minute."""
    for name, K in dict.fromkeys((row["name"], row["K"]) for row in rows):
        found = [row["tokens_per_s"] for row in rows if (row["name"], row["K"]) == (name, K)]
        middle = statistics.median(found) / 1e6
        console.print(f"{name}, K = {K}: {middle:.2f} million tokens/s, median of {len(found)}")


def plot(rows: Sequence[Report], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    for row in rows:
        _, seconds, found = zip(*row["points"], strict=True)
        axis.plot(seconds, found, marker="o", label=f"{row['name']}, K = {row['K']}")
    axis.set(xscale="log", xlabel="seconds", ylabel="held-out perplexity")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docword", type=Path, help="UCI bag of words, instead of synthetic")
    parser.add_argument("--docs", type=int, default=20_000, help="synthetic documents")
    parser.add_argument("--words", type=int, default=20_000, help="synthetic vocabulary")
    parser.add_argument("--topics", type=int, nargs="+", default=[100])
    parser.add_argument("--sweeps", type=int, nargs="+", default=[8, 20, 40, 80])
    parser.add_argument("--only", default=",".join(METHODS), help="methods, by commas")
    parser.add_argument("--repeats", type=int, default=1, help="of all methods, in turn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    data = from_docword(given.docword) if given.docword else synthetic(given.docs, given.words)
    rows: list[Report] = []
    with daskps.local_cluster(WORKERS) as cluster, Client(cluster):
        for K in given.topics:
            for _ in range(given.repeats):
                rows += measure(data, K, given.sweeps, given.only.split(","))
    show(rows)
    medians(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
