"""Softmax regression from scratch, as a model of one's own: ``python examples/softmax.py``.

Trains on scikit-learn's handwritten digits, on threads of this process; with ``--scheduler`` on a
Dask cluster, where workers may die on the way.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass

import numpy as np

import daskps


@dataclass(frozen=True)
class Softmax(daskps.Model):
    """Multinomial logistic regression by local steps of AdaGrad over small batches."""

    n_features: int
    n_classes: int
    eta: float = 1.0
    batch: int = 32

    def tables(self):
        return [
            daskps.Table("coef", self.n_features, self.n_classes, rule="steps"),
            daskps.Table("squares", self.n_features, self.n_classes),
        ]

    def step(self, rows, server):
        W = server.pull("coef", rows.columns)
        squares = server.pull("squares", rows.columns)
        W0, squares0, response = W.copy(), squares.copy(), np.zeros_like(W)
        labels = np.eye(self.n_classes, dtype=np.float32)[rows.y.astype(int)]
        loss = 0.0
        for first in range(0, len(rows), self.batch):
            some = slice(first, first + self.batch)
            X, Y = rows.X[some], labels[some]
            P = self.probabilities(X @ W)
            loss -= np.log(P[Y > 0]).sum()
            slope = X.T @ (P - Y)
            squares += slope**2
            rate = self.eta / (1 + np.sqrt(squares))
            W -= rate * slope
            reach = abs(X).sum(axis=1)[:, None]  # features of a row move together
            response += rate * (abs(X).T @ (reach * P * (1 - P)))
        server.push("coef", W - W0, rows.columns, response=response)
        server.push("squares", squares - squares0, rows.columns)
        return loss

    def evaluate(self, rows, server):
        P = self.probabilities(rows.X @ server.pull("coef", rows.columns))
        return -np.log(P[np.arange(len(rows)), rows.y.astype(int)]).sum()

    @staticmethod
    def probabilities(scores):
        P = np.exp(scores - scores.max(axis=1, keepdims=True))
        return P / P.sum(axis=1, keepdims=True)


def main() -> None:
    from distributed import Client
    from sklearn.datasets import load_digits

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    args = parser.parse_args()
    X, digit = load_digits(return_X_y=True)
    train, test = daskps.from_arrays(X / 16, digit).split(0.8)
    where = Client(args.scheduler) if args.scheduler else contextlib.nullcontext()
    with where:
        trained = daskps.train(
            Softmax(X.shape[1], 10), train, eval_set=test, max_iter=args.passes, rows_per_clock=100
        )
    print(f"log-loss after {trained.n_iter} passes: {float(trained.history.loss[-1]):.4f}")
    print(f"of held-out rows: {float(trained.history.eval_loss[-1]):.4f}")
    rows = [test.partition(p) for p in range(test.n_partitions)]
    right = sum(((p.to_scipy() @ trained["coef"]).argmax(axis=1) == p.label).sum() for p in rows)
    print(f"accuracy of held-out rows: {right / test.n_rows:.3f}")


if __name__ == "__main__":
    main()
