"""Checks of estimators' parameters, before any data is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.errors import DataError


def _real(low: float, high: float, *, open_low: bool = False) -> Callable[[Any], bool]:
    def check(x: Any) -> bool:
        if isinstance(x, bool) or not isinstance(x, (int, float, np.number)):
            return False
        return (low < x if open_low else low <= x) and x <= high and math.isfinite(x)

    return check


def _whole(low: int) -> Callable[[Any], bool]:
    def check(x: Any) -> bool:
        return isinstance(x, (int, np.integer)) and not isinstance(x, bool) and x >= low

    return check


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda x: x is None or check(x)


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, str) and x in values


def _period(x: Any) -> bool:
    from dask.utils import parse_timedelta

    if not isinstance(x, str):
        return _whole(1)(x)
    try:
        return bool(parse_timedelta(x) > 0)
    except (ValueError, KeyError):
        return False


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "alpha": (_real(0, math.inf), "a finite number >= 0"),
    "l1_ratio": (_real(0, 1), "a number in [0, 1]"),
    "eta0": (_real(0, math.inf, open_low=True), "a finite number > 0"),
    "solver": (_one_of("adagrad", "ftrl"), "'adagrad' or 'ftrl'"),
    "consistency": (_one_of("bsp", "ssp", "asp"), "'bsp', 'ssp' or 'asp'"),
    "staleness": (_whole(1), "an integer >= 1"),
    "max_iter": (_whole(1), "an integer >= 1"),
    "tol": (_optional(_real(-math.inf, math.inf)), "a number or None"),
    "n_iter_no_change": (_whole(1), "an integer >= 1"),
    "rows_per_clock": (_optional(_whole(1)), "an integer >= 1 or None"),
    "checkpoint_every": (_optional(_period), "clocks >= 1, a time such as '30s', or None"),
    "keep": (_whole(1), "an integer >= 1"),
    "n_shards": (_optional(_whole(1)), "an integer >= 1 or None"),
}


def check_parameters(estimator: Any) -> None:
    """Check every parameter that an estimator has.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what was expected.
    """
    for name, (good, expected) in _CHECKS.items():
        value = getattr(estimator, name, None)
        if hasattr(estimator, name) and not good(value):
            raise ValueError(
                f"{type(estimator).__name__}({name}={value!r}); expected {expected}."
            )


def class_weights(
    wanted: Any, classes: NDArray[Any], counts: NDArray[np.int64]
) -> tuple[float, ...] | None:
    """Return the factor of each class.

    Parameters
    ----------
    wanted
        None, ``"balanced"`` (``N / (n_classes x count)``), or a dict; classes it lacks weigh 1.
    classes
        Classes, ascending.
    counts
        Rows of each class.

    Raises
    ------
    DataError
        If the dict names a class that the data has not, or a factor is negative.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted == "balanced":
        present = np.maximum(counts, 1)
        return tuple(float(x) for x in counts.sum() / (np.count_nonzero(counts) * present))
    if not isinstance(wanted, dict):
        raise ValueError(f"class_weight={wanted!r}; expected None, 'balanced' or a dict.")
    known = classes.tolist()
    for label, factor in wanted.items():
        if label not in known or not _real(0, math.inf)(factor):
            raise DataError(
                f"class_weight has {label!r}: {factor!r}; expected classes among {known!r} with "
                "finite factors >= 0."
            )
    return tuple(float(wanted.get(x, 1.0)) for x in known)
