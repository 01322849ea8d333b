"""What a linear estimator learns: rows, and labels as the loss takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import xarray as xr
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.models.quantities import Scale


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be learnt: a dataset whose labels are as the loss takes them."""

    dataset: Dataset
    classes: NDArray[Any] | None = None
    """Ascending; None where labels are quantities."""
    class_weight: tuple[float, ...] | None = None
    scale: Scale = field(default_factory=Scale)
    """In which labels that are quantities are learnt."""

    @property
    def unit_of_loss(self) -> float:
        """What a loss of 1 in this scale is in the labels' own: losses are squares of it."""
        return self.scale.unit**2

    def history(self, found: xr.Dataset) -> xr.Dataset:
        """Return what a run found with its losses in the labels' own scale."""
        losses = [name for name in ("loss", "eval_loss", "objective") if name in found]
        changed = {name: found[name] * self.unit_of_loss for name in losses}
        return found.assign(changed) if self.unit_of_loss != 1 else found
