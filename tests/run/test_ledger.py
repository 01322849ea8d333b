"""Ledger: what each clock brought, and how it goes back, on, and into a manifest."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from daskps.run.checkpoint import ledger_from_builtins, ledger_to_builtins
from daskps.run.events import Turn
from daskps.run.ledger import Ledger


def two_passes() -> Ledger:
    """Return 2 partitions of 1 and 3 samples after 4 clocks, 2 of which make a pass."""
    ledger = Ledger(2)
    for clock in range(4):
        for p, samples in enumerate((1.0, 3.0)):
            metrics = {"loss": samples * (10 - clock) + p, "samples": samples, "seconds": 2.0}
            ledger.add(clock, p, p, metrics | {"pulled_bytes": 5.0}, now=100.0 + 10 * clock + p)
    ledger.evaluated(2, 7.0)
    ledger.evaluated(4, 6.0)
    ledger.recovered(3, 1.5)
    for clock in range(1, 5):
        ledger.turned(clock, Turn({"step": [clock, 0.5]}, {"objective": 8.0 - clock}))
    return ledger


def test_history_holds_means_and_sums_by_clock() -> None:
    history = two_passes().to_xarray()
    np.testing.assert_array_equal(history["clock"], range(4))
    np.testing.assert_allclose(history["loss"], [10 - c + 1 / 4 for c in range(4)])
    np.testing.assert_array_equal(history["samples"], [4] * 4)
    np.testing.assert_array_equal(history["seconds"], [3, 13, 23, 33])  # since the first start
    np.testing.assert_array_equal(history["pulled_bytes"], [10] * 4)
    np.testing.assert_array_equal(history["staleness"], [1] * 4)
    np.testing.assert_array_equal(history["eval_loss"], [np.nan, 7, np.nan, 6])
    np.testing.assert_array_equal(history["objective"], [7, 6, 5, 4])
    assert two_passes().pass_loss(1) == pytest.approx(8 - 0.5 + 1 / 4)
    assert math.isnan(two_passes().pass_loss(2))


def test_an_empty_history_opens() -> None:
    assert Ledger(1).to_xarray().sizes["clock"] == 0


def test_a_clock_of_a_partition_comes_once() -> None:
    ledger = two_passes()
    with pytest.raises(AssertionError):
        ledger.add(0, 0, 0, {}, 0.0)


def test_going_back_forgets_what_will_be_done_again() -> None:
    ledger = two_passes()
    ledger.rewind({0: 3, 1: 2})
    assert {c: sorted(e) for c, e in ledger.parts.items()} == {0: [0, 1], 1: [0, 1], 2: [0]}
    assert ledger.evaluations == {2: 7.0}
    assert sorted(ledger.turns) == [1, 2]
    assert ledger.recoveries == [(3, 1.5)]


def test_it_survives_json_and_goes_on_in_another_process() -> None:
    ledger = two_passes()
    again = ledger_from_builtins(json.loads(json.dumps(ledger_to_builtins(ledger))), 2)
    assert again == ledger
    again.go_on(5.0)
    again.add(4, 0, 0, {"loss": 1.0, "samples": 1.0}, now=9.0)
    np.testing.assert_array_equal(again.to_xarray()["seconds"], [3, 13, 23, 33, 37])
    np.testing.assert_array_equal(again.to_xarray()["objective"], [7, 6, 5, 4, np.nan])


def test_sums_of_a_clock_are_over_its_partitions() -> None:
    sums = two_passes().sums(1)
    assert (sums["loss"], sums["samples"]) == (9 + 27 + 1, 4)


def test_stalling_looks_at_evaluations_first_and_at_complete_passes_else() -> None:
    ledger = two_passes()
    assert not ledger.stalled(0.5, patience=1)
    assert ledger.stalled(1.5, patience=1)
    ledger.evaluations.clear()
    assert not ledger.stalled(1.5, patience=1)  # passes went from 9.75 to 7.75
    assert ledger.stalled(2.5, patience=1)
    ledger.add(4, 0, 0, {"loss": 99.0, "samples": 1.0}, 0.0)
    assert not ledger.stalled(1.5, patience=1)  # the third pass has only begun
    assert not Ledger(1).stalled(9.0, patience=1)
