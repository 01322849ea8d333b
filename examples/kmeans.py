"""k-means as a model of one's own: ``python examples/kmeans.py``.

Trains on scikit-learn's handwritten digits, on threads of this process; with ``--scheduler`` on a
Dask cluster, where workers may die on the way.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

import daskps


@dataclass(frozen=True)
class KMeans(daskps.Model):
    """Lloyd's algorithm: rows go to the nearest centre, centres to the mean of their rows.

    The table holds sums and counts. Each slice of rows keeps its share of them, and pushes only
    what has changed, so it works in every consistency.
    """

    n_clusters: int
    n_features: int
    keeps = ("share",)

    def tables(self):
        width = self.n_features + 1
        return [daskps.Table("total", self.n_clusters, width, dtype="float64")]

    def step(self, rows, server):
        total = server.pull("total")
        centres = total[:, :-1] / total[:, -1:]
        distances = (centres**2).sum(axis=1) - 2 * rows.X @ centres[:, rows.columns].T
        nearest = distances.argmin(axis=1)

        share = np.zeros_like(total)
        members = sp.csr_array(np.eye(self.n_clusters)[nearest].T)
        share[:, rows.columns] = (members @ rows.X).toarray()
        share[:, -1] = members.sum(axis=1)

        before = server.state()
        kept = server.keep(share=share)["share"]
        server.push("total", kept if before is None else kept - before["share"])
        return distances.min(axis=1).sum() + rows.X.power(2).sum()


def fit(model, data, **options):
    """Begin at rows of the data, which weigh next to nothing unless a cluster is empty."""
    weight = 1e-6
    first = data.partition(0).rows(0, model.n_clusters).to_scipy().toarray()
    begin = np.column_stack([first, np.ones(len(first))]) * weight
    trained = daskps.train(model, data, start={"total": begin}, **options)
    return trained, trained["total"][:, :-1] / trained["total"][:, -1:]


def main() -> None:
    from distributed import Client
    from sklearn.datasets import load_digits

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    args = parser.parse_args()
    X, digit = load_digits(return_X_y=True)
    data = daskps.from_arrays(X, digit)
    where = Client(args.scheduler) if args.scheduler else contextlib.nullcontext()
    with where:
        trained, centres = fit(KMeans(args.clusters, X.shape[1]), data, max_iter=50, tol=1e-3)
    print(f"{trained.n_iter} passes, mean squared distance {float(trained.history.loss[-1]):.2f}")
    nearest = ((X[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    for cluster in range(args.clusters):
        counts = np.bincount(digit[nearest == cluster], minlength=10)
        print(f"cluster {cluster}: {counts.sum()} rows, most are a {counts.argmax()}")


if __name__ == "__main__":
    main()
