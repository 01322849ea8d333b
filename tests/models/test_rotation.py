"""Blocks of items rotate: of the tasks that run at a time no two hold an item."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from daskps import MatrixFactorization
from daskps.data import as_ratings
from daskps.models import mf_setup
from daskps.models.mf_sgd import BlockData, SGDFactors
from daskps.run.plan import StepServer

PARTITIONS, ITEMS, PASSES = 4, 60, 3


class Watched(SGDFactors):
    """Tasks wait until all of a clock run, and note which items they hold then."""

    __slots__ = ()

    all_run: ClassVar[threading.Barrier]
    held: ClassVar[dict[int, list[set[int]]]]
    """Rows of the table of items, by clock."""

    def step(self, data: BlockData, server: StepServer) -> Mapping[str, float]:
        own = set(data.keysets[0].ids().tolist())
        self.held.setdefault(server.clock, []).append(own)
        self.all_run.wait(30)
        return super().step(data, server)


def test_tasks_that_run_together_hold_blocks_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Watched.all_run, Watched.held = threading.Barrier(PARTITIONS), {}
    monkeypatch.setattr(mf_setup, "SGDFactors", Watched)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(PARTITIONS)))
    X = sp.random_array((200, ITEMS), density=0.3, rng=np.random.default_rng(0), format="csr")
    ratings = as_ratings(X, n_partitions=PARTITIONS)
    MatrixFactorization(4, max_iter=PASSES).fit(ratings)
    assert len(Watched.held) == PASSES * PARTITIONS
    for blocks in Watched.held.values():
        assert len(blocks) == PARTITIONS
        assert not any(a & b for a, b in combinations(blocks, 2))
        assert len(set().union(*blocks)) == ITEMS
        assert max(map(len, blocks)) <= 1.5 * ITEMS / PARTITIONS
