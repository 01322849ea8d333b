"""Seeded runs in which much goes wrong: every kind of fault, on the models that there are.

The long form is ``make chaos``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from daskps import LogisticRegression
from daskps.testing import (
    Calm,
    DiskFull,
    Farm,
    Join,
    Kill,
    Report,
    Retire,
    Schedule,
    Slow,
    Stop,
    StoreGone,
    TornChunk,
    calm_run,
    chaos,
)
from daskps.testing.problems import PROBLEMS
from daskps.testing.strike import tear

pytestmark = pytest.mark.faults

SHORT = Schedule(
    0,
    (
        DiskFull(20, 0.4),
        Kill(50, 0),
        Slow(60, 1, 1.0),
        StoreGone(80, 0.4),
        Join(90),
        TornChunk(120, 3),
        Kill(125, 1),
        Retire(200, 0),
        Kill(280, 2),
    ),
)


def run(farm: Farm, name: str, schedule: Schedule) -> Report:
    problem = PROBLEMS[name]()
    calm = calm_run(problem.estimator, problem.fit, problem.quality)
    return chaos(
        problem.estimator,
        problem.fit,
        schedule,
        farm=farm,
        calm=calm,
        n_workers=2,
        quality=problem.quality,
        check=problem.check,
    )


@pytest.mark.parametrize(
    "name",
    ["lr-bsp", *(pytest.param(n, marks=pytest.mark.slow) for n in PROBLEMS if n != "lr-bsp")],
)
def test_everything_goes_wrong_and_the_model_is_as_it_would_have_been(
    tmp_path: Path, name: str
) -> None:
    with Farm(2, tmp_path) as farm:
        report = run(farm, name, SHORT)
    report.check()
    assert report.kills
    assert report.equal or "bsp" not in name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_a_worker_stops_and_comes_back_and_does_no_harm(tmp_path: Path, name: str) -> None:
    with Farm(3, tmp_path) as farm:
        report = run(farm, name, Schedule(0, (Stop(20, 0, 12.0), Kill(40, 1))))
    report.check()
    assert report.longest_pause < 14


class Wrong(BaseEstimator):
    """An estimator whose fits are never the same."""

    def __init__(self, checkpoint: Any = None) -> None:
        self.checkpoint = checkpoint

    def fit(self, X: Any) -> None:
        LogisticRegression(progress=False, max_iter=1).fit(*X)
        self.coef_ = np.random.default_rng().random(3)
        self.history_ = {"loss": [1.0]}


def test_what_does_not_hold_is_reported_with_the_schedule(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((50, 3)), rng.integers(2, size=50)
    calm = Calm({"coef_": b""}, 1.0, 1)
    with Farm(1, tmp_path) as farm:
        schedule = Schedule(7, ())
        report = chaos(Wrong(), lambda m: m.fit(rows), schedule, farm=farm, calm=calm, n_workers=1)
    assert not report.ok
    with pytest.raises(AssertionError, match=r'other bits.*"seed":7'):
        report.check()


def test_no_chunk_is_torn_where_there_is_no_cut(tmp_path: Path) -> None:
    assert tear(tmp_path, 0) is None
    assert tear(tmp_path / "none", 0) is None
