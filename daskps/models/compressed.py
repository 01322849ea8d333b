"""Linear models by local steps whose pushes have half the bytes, and lose nothing for good.

Changes of weights and sums of squares are pushed as bfloat16 (`daskps.server.short`), and what that
cuts off is kept with the partition and added to its next push of the same rows (error feedback,
Seide et al. 2014, section 3): what the shards have been told of a partition differs from what it
learnt by the last rounding, at most 1/256 of the last push, and not by the sum of all. Responses
stand for themselves and are rounded only. The intercept is pushed as it is.

References
----------
Seide, Fu, Droppo, Li and Yu (2014), "1-Bit Stochastic Gradient Descent and its Application to
Data-Parallel Distributed Training of Speech DNNs".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from daskps.data import Partition
from daskps.models.linear import LinearData, LinearModel
from daskps.run.plan import StepServer
from daskps.server.short import shorten, widen
from daskps.server.tables import Placement, TableSpec

FED_BACK = 2
"""Fields of a push that add up over clocks: force and sum of squares; the third is the response."""


@dataclass(frozen=True, slots=True)
class CompressedModel:
    """A linear model by local steps with shortened pushes; BSP only.

    Parameters
    ----------
    linear
        The model, with `short` set.
    clocks_per_pass
        Of the run.
    """

    linear: LinearModel
    clocks_per_pass: int

    @property
    def width(self) -> int:
        """Numbers a feature: one weight, or one for each class."""
        return self.linear.width

    @property
    def fit_intercept(self) -> bool:
        """Whether there is an unpenalised intercept."""
        return self.linear.fit_intercept

    @property
    def keeps(self) -> tuple[str, ...]:
        """What was cut off the last push of each slice."""
        return tuple(f"rest {s}" for s in range(self.clocks_per_pass))

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of weights and intercepts."""
        return self.linear.tables()

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> LinearData:
        """See `LinearModel.prepare`."""
        return self.linear.prepare(partition, placements)

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take local steps, and push what they changed and what the last push cut off."""
        data, deltas, figures = self.linear.learn(data, server)
        kept = server.state() or dict.fromkeys(
            self.keeps, np.zeros((0, FED_BACK, self.width), np.float32)
        )
        name = self.keeps[server.clock % self.clocks_per_pass]
        told = deltas[0]
        if len(kept[name]):
            told[:, :FED_BACK] += kept[name]
        short = shorten(told)
        server.keep({**kept, name: (told - widen(short))[:, :FED_BACK].copy()})
        server.push(data.keysets, [short, *deltas[1:]], samples=data.n_rows)
        return figures

    def evaluate(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the present weights."""
        return self.linear.evaluate(data, server)
