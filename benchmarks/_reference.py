"""The reference data of `benchmarks/lr.py`: what advertising logs look like, with known truth.

39 categorical fields; field f has d // 39 values, drawn with Zipf frequencies and scattered over
[0, d) as hashing would. Every row has 39 ones. A share of the features has a true weight, normal
with deviation `sigma`; labels are drawn from the logistic model of those weights, so that the best
possible log-loss is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

N_FIELDS = 39
BLOCK = 100_000
"""Rows that are drawn together; the draws depend on it."""


@dataclass(frozen=True)
class Settings:
    """What the data are a function of."""

    rows: int = 1_000_000
    test_rows: int = 200_000
    features: int = 1_000_000
    zipf: float = 1.1
    density: float = 0.2
    """Share of the features with a true weight."""
    sigma: float = 0.55
    bias: float = -1.4
    seed: int = 7


@dataclass(frozen=True)
class Rows:
    """Column ids, shape (n, 39), ascending in a row, and labels, 0 or 1."""

    ids: NDArray[np.int32]
    y: NDArray[np.uint8]


class Truth:
    """Where the values of each field are, how frequent they are, and what they weigh."""

    def __init__(self, settings: Settings) -> None:
        s = settings
        rng = np.random.default_rng(s.seed)
        self.bias = s.bias
        self.per_field = s.features // N_FIELDS
        self.place = rng.permutation(s.features)[: self.per_field * N_FIELDS].astype(np.int32)
        self.weight = np.zeros(s.features)
        on = rng.random(s.features) < s.density
        self.weight[on] = rng.normal(0, s.sigma, on.sum())
        frequency = np.arange(1, self.per_field + 1, dtype=np.float64) ** -s.zipf
        self.cumulated = np.cumsum(frequency / frequency.sum())

    def draw(self, n: int, seed: list[int]) -> tuple[Rows, NDArray[np.float64]]:
        """Return rows, and the true probability of the label 1 of each."""
        rng = np.random.default_rng(seed)
        ids, margin = np.empty((n, N_FIELDS), np.int32), np.empty(n)
        for start in range(0, n, BLOCK):
            block = ids[start : start + BLOCK]
            for field in range(N_FIELDS):
                rank = np.searchsorted(self.cumulated, rng.random(len(block)), side="right")
                rank = np.minimum(rank, self.per_field - 1)
                block[:, field] = self.place[field * self.per_field + rank]
            margin[start : start + BLOCK] = self.bias + self.weight[block].sum(1)
            block.sort(axis=1)
        p = 1 / (1 + np.exp(-margin))
        return Rows(ids, (rng.random(n) < p).astype(np.uint8)), p


def load(folder: Path, settings: Settings) -> tuple[Rows, Rows, float]:
    """Return training rows, test rows and the test log-loss of the truth; made once a folder."""
    where = reference_folder(folder, settings)
    if not (where / "settings.json").exists():
        _make(where, settings)
    facts = json.loads((where / "settings.json").read_text())
    train, test = (Rows(*arrays) for arrays in _arrays(where))
    return train, test, facts["best_log_loss"]


def reference_folder(folder: Path, settings: Settings) -> Path:
    """Return where the data of these settings are kept."""
    return folder / "-".join(["lr", *(f"{value:g}" for value in asdict(settings).values())])


def _arrays(where: Path) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
    for name in ("train", "test"):
        yield np.load(where / f"{name}_idx.npy"), np.load(where / f"{name}_y.npy")


def _make(where: Path, settings: Settings) -> None:
    where.mkdir(parents=True, exist_ok=True)
    truth = Truth(settings)
    best = 0.0
    for number, (name, n) in enumerate((("train", settings.rows), ("test", settings.test_rows)), 1):
        rows, p = truth.draw(n, [settings.seed, number])
        np.save(where / f"{name}_idx.npy", rows.ids)
        np.save(where / f"{name}_y.npy", rows.y)
        best = float(-np.mean(np.log(np.where(rows.y > 0, p, 1 - p))))
    facts = {**asdict(settings), "best_log_loss": best}
    (where / "settings.json").write_text(json.dumps(facts, indent=1))  # last: the rest is whole
