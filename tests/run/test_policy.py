"""What a run is to do: names of consistencies and their bounds."""

from __future__ import annotations

import math

import pytest

from daskps.run.policy import Policy, staleness_of
from daskps.server.spec import enough


@pytest.mark.parametrize(
    ("consistency", "staleness", "bound"), [("bsp", 2, 0), ("ssp", 2, 2), ("asp", 2, math.inf)]
)
def test_consistency_names(consistency: str, staleness: int, bound: float) -> None:
    assert staleness_of(consistency, staleness) == bound


@pytest.mark.parametrize(
    ("bound", "left", "lead"), [(math.inf, 40, 20), (math.inf, 1, 1), (0, 40, 0), (3, 2, 3)]
)
def test_without_a_bound_a_lead_is_half_of_what_the_others_have_left(
    bound: float, left: int, lead: float
) -> None:
    assert Policy(2, 1, 40, staleness=bound).lead(left) == lead


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_a_quorum_is_refused_where_it_would_mean_nothing(consistency: str) -> None:
    with pytest.raises(ValueError, match=r"quorum=0\.9 with .* expected consistency='ssp'"):
        staleness_of(consistency, 1, 0.9)


@pytest.mark.parametrize(
    ("quorum", "n", "wanted"),
    [(1.0, 7, 7), (0.95, 100, 95), (0.07, 100, 7), (0.5, 3, 2), (0.01, 3, 1)],
)
def test_a_quorum_is_rounded_up(quorum: float, n: int, wanted: int) -> None:
    assert enough(quorum, n) == wanted


@pytest.mark.parametrize(
    ("consistency", "staleness", "message"), [("sync", 1, "'sync'"), ("ssp", 0, "staleness=0")]
)
def test_wrong_consistency_is_refused(consistency: str, staleness: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        staleness_of(consistency, staleness)
