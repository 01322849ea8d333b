"""What a run is to do: names of consistencies and their bounds."""

from __future__ import annotations

import math

import pytest

from daskps.run.policy import staleness_of


@pytest.mark.parametrize(
    ("consistency", "staleness", "bound"), [("bsp", 2, 0), ("ssp", 2, 2), ("asp", 2, math.inf)]
)
def test_consistency_names(consistency: str, staleness: int, bound: float) -> None:
    assert staleness_of(consistency, staleness) == bound


@pytest.mark.parametrize(
    ("consistency", "staleness", "message"), [("sync", 1, "'sync'"), ("ssp", 0, "staleness=0")]
)
def test_wrong_consistency_is_refused(consistency: str, staleness: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        staleness_of(consistency, staleness)
