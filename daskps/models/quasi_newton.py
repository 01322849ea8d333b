"""The scalar half of L-BFGS and OWL-QN: products of vectors in, what to do with the vectors out.

The vectors stay on the shards (`daskps.server._quasi_newton`). Since the two-loop recursion only
ever adds multiples of the gradient, of s and of y, it runs here on their products, and the shards
then add the vectors up once. Owns no table, message or data.

References
----------
Nocedal and Wright (2006), "Numerical Optimization", algorithm 7.4. Andrew and Gao (2007),
"Scalable Training of L1-Regularized Log-Linear Models". Chen, Wang and Zhou (2014), "Large-scale
L-BFGS using MapReduce", for the recursion on products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from daskps.structs import known

N_PAIRS = 10
"""Pairs (s, y) that are kept."""
SUFFICIENT, FLAT = 1e-4, 0.9
"""Wolfe's constants: the share of the promised decrease that a step must bring, and the share of
the slope below which it is long enough (Nocedal and Wright, eq. 3.6)."""
FIRST = 0.1
"""First step along the scaled gradient; 1 would be right if features were independent."""
PRECISION = 1e-9
"""Relative changes of the objective below this are not told from rounding."""
MAX_TRIALS = 12


@dataclass(frozen=True, slots=True)
class Products:
    """What the shards measured between the iterate x0 and the trial point x; p is the slope at x.

    With L1, slopes are those of the pseudo-gradient. All but `slope` and `norm2` are of scaled
    vectors, which changes no product of an s with a y or a p.
    """

    old: NDArray[np.float64]
    """s.y, y.y, s.p and y.p of each kept s and y with the new y and p, shape (4, N_PAIRS)."""
    penalty: float
    from_start: float
    """Slope at x0 times (x - x0)."""
    at_trial: float
    """Slope at x times (x - x0)."""
    sy: float
    yy: float
    pp: float
    sp: float
    yp: float
    norm2: float
    """Square of the plain pseudo-gradient."""

    @classmethod
    def of(cls, sums: NDArray[np.float64]) -> Self:
        """Read the answer of the server function ``lbfgs_measure``."""
        old = sums[-4 * N_PAIRS :].reshape(4, N_PAIRS)
        return cls(old, *sums[: -4 * N_PAIRS].tolist())


@dataclass(frozen=True, slots=True)
class Move:
    """What the shards are to do: the parameters of the server function ``lbfgs_move``."""

    accept: bool
    pair: int
    """Number under which the change is kept; -1 does not keep it."""
    coefficients: NDArray[np.float64] | None
    """Of p, of every s and of every y in minus the new direction; None leaves the direction."""
    length: float


@known
class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Where the search stands between two evaluations; plain numbers, for checkpoints."""

    objective: float
    """At the iterate."""
    norm2: float
    length: float
    """Of the step that is tried."""
    low: float = 0.0
    """A step that decreases enough but is too short, and what was found there."""
    low_objective: float
    low_slope: float | None = None
    """By the length; None until a trial has told the slope at the iterate."""
    high: float | None = None
    """A step that is too long."""
    trials: int = 0
    order: tuple[int, ...] = ()
    """Numbers of the pairs, oldest first."""
    sy: tuple[tuple[float, ...], ...]
    """s_i . y_j for j not older than i, shape (N_PAIRS, N_PAIRS)."""
    yy: tuple[tuple[float, ...], ...]
    recent: tuple[float, ...] = ()
    """Objectives of the last iterates."""
    converged: bool = False


def begin(objective: float, m: Products) -> tuple[Search, Move]:
    """Start from the trial point, whatever is there."""
    nothing = ((0.0,) * N_PAIRS,) * N_PAIRS
    search = Search(
        objective=objective,
        norm2=m.norm2,
        length=FIRST,
        low_objective=objective,
        sy=nothing,
        yy=nothing,
        recent=(objective,),
        converged=m.pp == 0.0,
    )
    return search, Move(accept=True, pair=-1, coefficients=_steepest(), length=FIRST)


def go_on(
    search: Search, objective: float, m: Products, tol: float | None, patience: int
) -> tuple[Search, Move]:
    """Judge the trial point and say what comes next.

    Parameters
    ----------
    search
        Where the search stood.
    objective
        At the trial point.
    m
        What the shards measured there.
    tol, patience
        Training is over when the last `patience` iterates together gained less than `tol`.
    """
    rounding = PRECISION * abs(search.objective)
    if not objective <= search.objective + SUFFICIENT * m.from_start + rounding:
        return _again(search, _shorter(search, objective, m))
    if search.trials < MAX_TRIALS and m.at_trial < FLAT * m.from_start:
        return _again(search, _longer(search, objective, m))
    return _accept(search, objective, m, tol, patience)


def _again(search: Search, found: Search) -> tuple[Search, Move]:
    """Try another step along the same direction, or begin with a fresh one."""
    if found.trials < MAX_TRIALS:
        return found, Move(accept=False, pair=-1, coefficients=None, length=found.length)
    # nothing along this direction is better than rounding: the pairs, or the precision, are at
    # their end
    fresh = replace(
        search,
        length=FIRST,
        low=0.0,
        low_objective=search.objective,
        low_slope=None,
        high=None,
        trials=0,
        order=(),
        converged=not search.order,
    )
    return fresh, Move(accept=False, pair=-1, coefficients=_steepest(), length=FIRST)


def _shorter(search: Search, objective: float, m: Products) -> Search:
    """Return the search with the minimum of a parabola between `low` and the trial point."""
    slope = search.low_slope if search.low_slope is not None else m.from_start / search.length
    width = search.length - search.low
    excess = objective - search.low_objective - slope * width
    share = -slope * width / (2 * excess) if excess > 0 else 0.5  # also for NaN and infinity
    length = search.low + min(max(share, 0.1), 0.5) * width
    return replace(
        search, high=search.length, length=length, low_slope=slope, trials=search.trials + 1
    )


def _longer(search: Search, objective: float, m: Products) -> Search:
    """Return the search with the zero of the line through the slopes at `low` and here."""
    start = search.low_slope if search.low_slope is not None else m.from_start / search.length
    slope = m.at_trial / search.length
    width = search.length - search.low
    ahead = width * slope / (start - slope) if slope > start else np.inf
    if search.high is None:
        ahead = min(max(ahead, search.length), 9 * search.length)
    else:
        room = search.high - search.length
        ahead = min(max(ahead, 0.1 * room), 0.9 * room)
    return replace(
        search,
        low=search.length,
        low_objective=objective,
        low_slope=slope,
        length=search.length + ahead,
        trials=search.trials + 1,
    )


def _accept(
    search: Search, objective: float, m: Products, tol: float | None, patience: int
) -> tuple[Search, Move]:
    order, sy, yy, pair = _with_pair(search, m)
    coefficients, promised = _two_loops(order, pair, sy, yy, m)
    if not promised > 0:  # rounding has spoilt the pairs
        order, coefficients, promised = [], _steepest(), m.pp
    length = 1.0 if order else FIRST
    recent = (*search.recent, objective)[-patience - 1 :]
    gained = recent[0] - recent[-1]
    stalled = tol is not None and len(recent) > patience and gained < tol
    found = Search(
        objective=objective,
        norm2=m.norm2,
        length=length,
        low_objective=objective,
        order=tuple(order),
        sy=_plain(sy),
        yy=_plain(yy),
        recent=recent,
        converged=stalled or promised <= PRECISION * abs(objective),
    )
    return found, Move(accept=True, pair=pair, coefficients=coefficients, length=length)


Matrix = NDArray[np.float64]


def _with_pair(search: Search, m: Products) -> tuple[list[int], Matrix, Matrix, int]:
    """Return the pairs with the new one, unless it has no curvature; and its number or -1."""
    order, sy, yy = list(search.order), np.array(search.sy), np.array(search.yy)
    if not m.sy > 1e-6 * m.yy:
        return order, sy, yy, -1
    free = [i for i in range(N_PAIRS) if i not in order]
    pair = free[0] if free else order.pop(0)
    sy[:, pair], yy[:, pair] = m.old[0], m.old[1]
    yy[pair] = m.old[1]
    sy[pair, pair], yy[pair, pair] = m.sy, m.yy
    return [*order, pair], sy, yy, pair


def _two_loops(
    order: list[int], new: int, sy: Matrix, yy: Matrix, m: Products
) -> tuple[NDArray[np.float64], float]:
    """Return what to multiply p, every s and every y with to get H p, and p . H p.

    Algorithm 7.4 with every vector written as such a combination.
    """
    if not order:
        return _steepest(), m.pp
    sp, yp = m.old[2].copy(), m.old[3].copy()
    if new >= 0:
        sp[new], yp[new] = m.sp, m.yp
    by_s, by_y = np.zeros(N_PAIRS), np.zeros(N_PAIRS)  # of q first, then of r
    for i in reversed(order):
        by_y[i] = -(sp[i] + sum(by_y[j] * sy[i, j] for j in order)) / sy[i, i]
    last = order[-1]
    gamma = sy[last, last] / yy[last, last]  # eq. 7.20
    alpha = -by_y
    by_y = gamma * by_y
    for i in order:
        y_r = gamma * yp[i] + yy[i] @ by_y + sum(by_s[k] * sy[k, i] for k in order)
        by_s[i] = alpha[i] - y_r / sy[i, i]
    coefficients = np.concatenate([[gamma], by_s, by_y])
    return coefficients, float(gamma * m.pp + by_s @ sp + by_y @ yp)


def _steepest() -> NDArray[np.float64]:
    coefficients = np.zeros(1 + 2 * N_PAIRS)
    coefficients[0] = 1.0
    return coefficients


def _plain(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def to_state(search: Search) -> dict[str, Any]:
    """Return the search as JSON has it."""
    state: dict[str, Any] = msgspec.to_builtins(search)
    return state


def from_state(state: Mapping[str, Any]) -> Search:
    """Return the search of `to_state`, which may have gone through JSON."""
    return msgspec.convert(state, Search)
