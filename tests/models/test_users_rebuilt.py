"""Users whose rows are lost with their shard and the checkpoint: solved for against the items."""

from __future__ import annotations

import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from daskps import MatrixFactorization, Ratings, read_ratings
from daskps.errors import CheckpointError
from daskps.kernels import mf
from daskps.models.mf_rebuilt import AgainstItems
from daskps.run import events as ev
from daskps.run import launch
from daskps.run.checkpoint import published
from daskps.run.inprocess import InProcessEngine
from daskps.run.ledger import Ledger

LOST = 1
"""Partition whose users are lost."""
KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"max_iter": 12, "learning_rate": 0.3},
    "als": {"max_iter": 5, "solver": "als", "cg_steps": 2},
    "implicit": {"max_iter": 5, "loss": "implicit", "cg_steps": 2},
}


@cache
def ratings() -> tuple[Ratings, Ratings]:
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(300, 4)), rng.normal(size=(60, 4))
    u, i = np.divmod(rng.choice(300 * 60, 6000, replace=False), 60)
    values = 6 + (P[u] * Q[i]).sum(axis=1) / 2 + rng.normal(size=6000) * 0.3
    frame = pd.DataFrame({"user": u, "item": i, "rating": values.clip(0.1)})
    return read_ratings(frame, n_partitions=3).split(0.9)


def fitted(kind: str, **options: Any) -> MatrixFactorization:
    return model(kind, **options).fit(ratings()[0])


def model(kind: str, **options: Any) -> MatrixFactorization:
    return MatrixFactorization(4, progress=False, **(KINDS[kind] | options))


def quality(found: MatrixFactorization) -> float:
    if found.loss == "implicit":
        return float(found.history_.objective[-1])
    return found.rmse(ratings()[1], unknown="popular")


def lose_users(store: Path, n_cuts: int = 2) -> None:
    for cut in published(str(store))[:n_cuts]:
        shutil.rmtree(store / cut / f"state/{LOST}")


class LosingEngine(InProcessEngine):
    """Waits for cuts; at a launch it loses a partition's home, and what cuts have of its users."""

    at: int
    told: list[ev.Action]

    def execute(self, action: ev.Action, ledger: Ledger) -> None:
        self.told.append(action)
        assert self._writer is not None
        if isinstance(action, ev.Launch):
            self._writer.join(60)
            if len([a for a in self.told if isinstance(a, ev.Launch)]) == self.at:
                lose_users(Path(str(self.store)))
                self.lose(self.layout.homes[LOST])
        super().execute(action, ledger)


def stopped(kind: str, store: Path) -> MatrixFactorization:
    """Return an estimator whose fit was stopped at its third cut."""

    def stop(now: int, loss: float) -> None:
        if now == 13:
            raise KeyboardInterrupt

    found = model(kind, checkpoint=store, checkpoint_every=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "InProcessEngine", LosingEngine)
        LosingEngine.told, LosingEngine.at = [], -1
        with pytest.raises(KeyboardInterrupt):
            found.fit(ratings()[0], callback=stop)
    assert published(str(store)) == ["cut-00000012", "cut-00000008"]
    return found


@pytest.mark.parametrize(("k", "biases"), [(5, True), (16, False), (16, True)])
def test_users_are_those_of_least_squares(k: int, biases: bool) -> None:
    rng, n = np.random.default_rng(1), 2000
    rule = mf.Rule(k, 0.1, 0.05, 0.02, biases)
    Q, side = mf.rows(60, mf.padded(k)), np.ones((60, mf.N_SIDE), np.float32)
    Q[:, :k] = rng.normal(size=(60, k)) / 2
    side[:, mf.BIAS] = rng.normal(size=60) if biases else 0
    users, items = np.divmod(rng.choice(40 * 60, n, replace=False), 60)
    r = rng.normal(size=n).astype(np.float32)
    halves = [(items < 30, slice(0, 30)), (items >= 30, slice(30, 60))]
    blocks = [
        mf.Block(users[h].astype(np.uint32), (items[h] % 30).astype(np.uint32), r[h])
        for h, _ in halves
    ]
    # the last user rated nothing
    P, beside = AgainstItems(
        blocks, 41, lambda b: (Q[halves[b][1]], side[halves[b][1]]), rule
    ).users()
    for u in range(40):
        own = users == u
        Y = Q[items[own], :k].astype(float)
        penalty = np.full(k, rule.l2)
        if biases:
            Y, penalty = np.column_stack([Y, np.ones(own.sum())]), np.append(penalty, rule.bias_l2)
        target = r[own] - side[items[own], mf.BIAS]
        want = np.linalg.solve(Y.T @ Y + own.sum() * np.diag(penalty), Y.T @ target)
        found = np.append(P[u, :k], beside[u, mf.BIAS]) if biases else P[u, :k]
        np.testing.assert_allclose(found, want, atol=0.01)
        square = (target - Y @ want) ** 2
        assert beside[u, mf.BIAS_SUM] == pytest.approx(1 + square.sum(), rel=0.02)
        each = square * (Y[:, :k] ** 2).sum(axis=1)
        assert beside[u, mf.SUM] == pytest.approx(1 + each.sum() / k, rel=0.02)
    assert not P[40].any()
    np.testing.assert_array_equal(beside[40], [0, 1, 1, 1])


def losses(found: MatrixFactorization) -> Any:
    """Return the loss of the clocks that are not over before the users are lost."""
    told = found.history_["objective" if found.loss == "implicit" else "loss"].values[12:]
    return told[np.isfinite(told)]


@pytest.mark.parametrize(
    ("kind", "near"),
    # users that begin anew have 2.9, 1.2 and 1.01 times the loss
    [("sgd", 0.1), pytest.param("als", 0.02, marks=pytest.mark.slow), ("implicit", 0.002)],
)
def test_a_resumed_run_makes_users_again_that_no_cut_has(
    kind: str, near: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calm, found = fitted(kind), stopped(kind, tmp_path / "c")
    lose_users(tmp_path / "c")
    shutil.copytree(tmp_path / "c", tmp_path / "2")
    with caplog.at_level(logging.WARNING, "daskps"):
        found.fit(ratings()[0], resume=True)
    assert f"what partition {LOST} keeps is lost; it is made again at clock 12" in caplog.text
    assert found.n_iter_ == KINDS[kind]["max_iter"]
    np.testing.assert_allclose(losses(found), losses(calm), rtol=near)
    other = model(kind, checkpoint=tmp_path / "2", n_shards=2).fit(ratings()[0], resume=True)
    assert found.user_factors_.identical(other.user_factors_)


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
def test_a_loss_costs_the_users_of_the_lost_shard_at_the_most(
    consistency: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LosingEngine.told, LosingEngine.at = [], 45
    length = {"consistency": consistency, "max_iter": 24}  # of which a third of a pass is little
    calm = quality(fitted("sgd", **length))
    monkeypatch.setattr(launch, "InProcessEngine", LosingEngine)
    store = {"checkpoint": tmp_path / "c", "checkpoint_every": 3}
    found = fitted("sgd", n_shards=3, **length, **store)
    assert quality(found) == pytest.approx(calm, rel=0.05)
    (loss,) = [a for a in LosingEngine.told if isinstance(a, ev.Recover)]
    # nobody else goes back where that is not what makes the bits
    assert loss.how == ("rollback" if consistency == "bsp" else "partial")
    clocks = [a.clock for a in LosingEngine.told if isinstance(a, ev.Launch)]
    assert (len(clocks) > 72 * 3 + 3) == (consistency == "bsp")


def test_a_whole_cut_is_taken_before_users_are_made_again(tmp_path: Path) -> None:
    found = stopped("sgd", tmp_path / "c")
    lose_users(tmp_path / "c", 1)
    found.fit(ratings()[0], resume=True)
    assert found.user_factors_.identical(fitted("sgd").user_factors_)


def test_users_that_are_lost_at_the_end_are_not_zeros(tmp_path: Path) -> None:
    store = tmp_path / "c"
    fitted("sgd", checkpoint=store, checkpoint_every=100)
    lose_users(store)
    with pytest.raises(CheckpointError, match="none of the 1 cuts"):
        model("sgd", checkpoint=store).fit(ratings()[0], resume=True)
