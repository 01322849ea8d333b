"""Twenty seeded runs each in BSP and SSP, in which a random worker dies at a random moment."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_tools import Farm, Recorder, assert_clean, at, bits, calm, off, train

from daskps.run import events as ev

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1200)]

RUNS = 20
PASSES = 8
N_WORKERS = 3
N_SHARDS = 2  # fewer than workers, so that some victims hold a shard and some do not


@dataclass(frozen=True, slots=True)
class Run:
    held: bool
    nanny: bool
    pause: float
    """Longest time without a finished task after the kill, in seconds."""
    equal: bool
    off: float
    """Percent by which the held-out loss differs from that of calm runs."""


def one_run(farm: Farm, consistency: str, seed: int, store: Path) -> Run:
    chance = random.Random(seed)
    seen, nanny, held = Recorder(), seed % 2 == 1, []

    def strike() -> None:
        name = chance.choice(sorted(farm.workers().values()))
        held.append(name in farm.holders())
        farm.kill(name, nanny=nanny)

    kill = at(ev.TaskDone, strike, nth=chance.randint(1, 240))
    cuts = {"checkpoint": str(store), "checkpoint_every": 3}
    shards = {"n_shards": N_SHARDS, "max_iter": PASSES}
    outcome = train(farm.client, consistency, seen, kill, **cuts, **shards)
    assert kill.at is not None
    assert_clean(farm.scheduler)
    same = bits(outcome) == bits(calm(max_iter=PASSES))
    pause = seen.pause_after(kill.at)
    return Run(held[0], nanny, pause, same, off(outcome, consistency, max_iter=PASSES))


@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_every_run_finishes(tmp_path: Path, consistency: str) -> None:
    runs = []
    with Farm(N_WORKERS, tmp_path) as farm:
        for seed in range(RUNS):
            runs.append(one_run(farm, consistency, seed, tmp_path / f"{seed}.zarr"))
            farm.repair(N_WORKERS)
    losses = [r.off for r in runs]
    pauses = [r.pause for r in runs]
    print(
        f"\n{consistency}: {len(runs)} of {RUNS} runs finished; the victim held a shard in "
        f"{sum(r.held for r in runs)}, its nanny died too in {sum(r.nanny for r in runs)}; bits as "
        f"in the calm run in {sum(r.equal for r in runs)}; held-out loss off that of calm "
        f"runs by {min(losses):+.2f} to {max(losses):+.2f} %; longest pause after the "
        f"kill {max(pauses):.2f} s, median {statistics.median(pauses):.2f} s"
    )
    assert consistency != "bsp" or all(r.equal for r in runs)
    assert max(map(abs, losses)) < 0.5
    assert max(pauses) < 10
