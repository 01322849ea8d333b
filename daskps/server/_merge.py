"""Compiled loops of the updaters: how pushes of concurrent partitions become one change.

Every loop is element-wise over (row, value), so results do not depend on how rows are grouped
into slots, shards or calls; therefore no fastmath here. docs/explanation/merging.md derives the
formulas. Shapes: rows (m, fields, width), acc (k, 3, width), push (k, 3 or 5, width); `idx`
(k,) gives the rows of a push and may be empty with `everything` True. The first number of a push
is the force: the change of the value times its stiffness, 1 + lam.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.prefetch import prefetch

AHEAD = 16
"""Rows between asking for one and changing it; of a table beyond all caches 1.5 x."""

F32 = NDArray[np.float32]
Scalar = Any  # float32 in compiled code
Index = NDArray[Any]


@njit(inline="always")
def stiffness(lam: Scalar) -> Scalar:
    """Gradient-like over actual displacement of a pass whose response is `lam`."""
    return np.float32(1) + lam


@njit(inline="always")
def step_size(n: Scalar, eta: Scalar, beta: Scalar, kappa: Scalar) -> Scalar:
    """AdaGrad's step, 1 / ((beta + sqrt(n)) / eta + kappa n)."""
    return eta / (beta + np.sqrt(n) + eta * kappa * n)


@njit(inline="always")
def proximal(v: Scalar, weight: Scalar, l2: Scalar, l1: Scalar) -> Scalar:
    """Minimise ``weight/2 (w - v)^2 + l2/2 w^2 + l1 |w|`` over w."""
    return np.copysign(np.maximum(abs(v) * weight - l1, np.float32(0)), v) / (weight + l2)


@njit(inline="always")
def joint(
    now: Scalar,
    Lam_now: Scalar,
    base: Scalar,
    Lam_base: Scalar,
    force: Scalar,
    lam: Scalar,
) -> Scalar:
    """Value after one more pass from `base`, when others have moved it to `now` meanwhile."""
    others = Lam_now - Lam_base
    change = stiffness(others) * (now - base) + force
    return base + change / stiffness(others + lam)


@njit(nogil=True, cache=True, error_model="numpy")
def gather(rows: F32, idx: Index, everything: bool, out: F32) -> None:
    """Copy the first ``out.shape[1]`` fields of rows `idx`."""
    for k in range(out.shape[0]):
        i = k if everything else idx[k]
        for f in range(out.shape[1]):
            for c in range(out.shape[2]):
                out[k, f, c] = rows[i, f, c]


@njit(nogil=True, cache=True, error_model="numpy")
def commit_sgd(rows: F32, idx: Index, everything: bool, acc: F32) -> None:
    """Merge a clock of local SGD; acc holds the sums of force and lam."""
    for k in range(acc.shape[0]):
        i = k if everything else idx[k]
        for c in range(rows.shape[2]):
            rows[i, 0, c] += acc[k, 0, c] / stiffness(acc[k, 1, c])


@njit(nogil=True, cache=True, error_model="numpy")
def apply_sgd(rows: F32, idx: Index, everything: bool, push: F32) -> None:
    """Merge one push of local SGD on arrival."""
    for k in range(push.shape[0]):
        i = k if everything else idx[k]
        for c in range(push.shape[2]):
            lam, base, Lam = push[k, 1, c], push[k, 2, c], push[k, 3, c]
            rows[i, 0, c] = joint(rows[i, 0, c], rows[i, 1, c], base, Lam, push[k, 0, c], lam)
            rows[i, 1, c] += lam


@njit(nogil=True, cache=True, error_model="numpy")
def commit_adagrad(
    rows: F32,
    idx: Index,
    everything: bool,
    acc: F32,
    eta: Scalar,
    beta: Scalar,
    kappa: Scalar,
    l2: Scalar,
    l1: Scalar,
) -> None:
    """Merge a clock of local AdaGrad and its penalty `l2`, `l1` (alpha x samples)."""
    m = acc.shape[0]
    for k in range(m):
        if not everything:
            prefetch(rows, idx[min(k + AHEAD, m - 1)])
        i = k if everything else idx[k]
        for c in range(rows.shape[2]):
            rows[i, 1, c] += acc[k, 1, c]
            weight = stiffness(acc[k, 2, c])
            step = step_size(rows[i, 1, c], eta, beta, kappa)
            v = rows[i, 0, c] + acc[k, 0, c] / weight
            rows[i, 0, c] = proximal(v, weight, l2 * step, l1 * step)


@njit(nogil=True, cache=True, error_model="numpy")
def shrink_adagrad(
    rows: F32,
    idx: Index,
    everything: bool,
    but: Index,
    eta: Scalar,
    beta: Scalar,
    kappa: Scalar,
    l2: Scalar,
    l1: Scalar,
) -> None:
    """Apply the penalty of a clock to rows `idx` that are not among `but`; both ascend."""
    at = 0
    for k in range(rows.shape[0] if everything else idx.size):
        i = k if everything else idx[k]
        while at < but.size and but[at] < i:
            at += 1
        if at < but.size and but[at] == i:
            continue
        for c in range(rows.shape[2]):
            step = step_size(rows[i, 1, c], eta, beta, kappa)
            rows[i, 0, c] = proximal(rows[i, 0, c], np.float32(1), l2 * step, l1 * step)


@njit(nogil=True, cache=True, error_model="numpy")
def commit_mean(rows: F32, idx: Index, everything: bool, acc: F32) -> None:
    """Add mean changes; acc holds the sums of counts x changes and, third, of counts."""
    for k in range(acc.shape[0]):
        i = k if everything else idx[k]
        for c in range(rows.shape[2]):
            if acc[k, 2, c] > np.float32(0):
                rows[i, 0, c] += acc[k, 0, c] / acc[k, 2, c]


@njit(nogil=True, cache=True, error_model="numpy")
def flush_adagrad(
    rows: F32,
    idx: Index,
    everything: bool,
    eta: Scalar,
    beta: Scalar,
    kappa: Scalar,
    alpha2: Scalar,
    alpha1: Scalar,
    T: Scalar,
    out: F32,
) -> None:
    """Fill out[:, 0] with the weights after the penalty of the samples since they changed."""
    for k in range(out.shape[0]):
        i = k if everything else idx[k]
        for c in range(out.shape[2]):
            since = max(T - rows[i, 3, c], 0.0)
            step = step_size(rows[i, 1, c], eta, beta, kappa)
            l2, l1 = np.float32(alpha2 * since) * step, np.float32(alpha1 * since) * step
            out[k, 0, c] = proximal(rows[i, 0, c], np.float32(1), l2, l1)


@njit(nogil=True, cache=True, error_model="numpy")
def apply_adagrad(
    rows: F32,
    idx: Index,
    everything: bool,
    push: F32,
    eta: Scalar,
    beta: Scalar,
    kappa: Scalar,
    alpha2: Scalar,
    alpha1: Scalar,
    T: Scalar,
    R: Scalar,
) -> None:
    """Merge one push on arrival; rows hold w, n, Lam and t, the samples seen when w changed."""
    own2, own1 = np.float32(alpha2 * R), np.float32(alpha1 * R)
    for k in range(push.shape[0]):
        i = k if everything else idx[k]
        for c in range(push.shape[2]):
            since = max(T - rows[i, 3, c], 0.0)
            step = step_size(rows[i, 1, c], eta, beta, kappa)
            l2, l1 = np.float32(alpha2 * since) * step, np.float32(alpha1 * since) * step
            now = proximal(rows[i, 0, c], np.float32(1), l2, l1)
            lam, base, Lam = push[k, 2, c], push[k, 3, c], push[k, 4, c]
            v = joint(now, rows[i, 2, c], base, Lam, push[k, 0, c], lam)
            weight = stiffness(rows[i, 2, c] - Lam + lam)
            rows[i, 1, c] += push[k, 1, c]
            step = step_size(rows[i, 1, c], eta, beta, kappa)
            rows[i, 0, c] = proximal(v, weight, own2 * step, own1 * step)
            rows[i, 2, c] += lam
            rows[i, 3, c] = np.float32(T + R)


@njit(nogil=True, cache=True, error_model="numpy")
def commit_ftrl(
    rows: F32, idx: Index, everything: bool, acc: F32, eta: Scalar, beta: Scalar, l2: Scalar
) -> None:
    """Merge a clock of local FTRL; `l2` is alpha2 x samples at the end of the clock."""
    for k in range(acc.shape[0]):
        i = k if everything else idx[k]
        for c in range(rows.shape[2]):
            n = rows[i, 1, c]
            u = -rows[i, 0, c] / ((beta + np.sqrt(n)) / eta + l2)
            u += acc[k, 0, c] / stiffness(acc[k, 2, c])
            n += acc[k, 1, c]
            rows[i, 0, c] = -u * ((beta + np.sqrt(n)) / eta + l2)
            rows[i, 1, c] = n


@njit(nogil=True, cache=True, error_model="numpy")
def commit_ftrl_mean(
    rows: F32,
    idx: Index,
    everything: bool,
    acc: F32,
    eta: Scalar,
    beta: Scalar,
    l2: Scalar,
    l1: Scalar,
) -> None:
    """Do the same to rows of FTRL: z becomes one that stands for the changed weight."""
    for k in range(acc.shape[0]):
        i = k if everything else idx[k]
        for c in range(rows.shape[2]):
            if acc[k, 2, c] > np.float32(0):
                D = (beta + np.sqrt(rows[i, 1, c])) / eta + l2
                u = -rows[i, 0, c] / D
                w = np.copysign(np.maximum(abs(u) - l1 / D, np.float32(0)), u)
                w += acc[k, 0, c] / acc[k, 2, c]
                away = np.float32(0) if w == np.float32(0) else np.copysign(l1, w)
                rows[i, 0, c] = -(D * w + away)


@njit(nogil=True, cache=True, error_model="numpy")
def apply_ftrl(
    rows: F32,
    idx: Index,
    everything: bool,
    push: F32,
    eta: Scalar,
    beta: Scalar,
    l2: Scalar,
) -> None:
    """Merge one push of local FTRL on arrival; rows hold z, n, Lam."""
    for k in range(push.shape[0]):
        i = k if everything else idx[k]
        for c in range(push.shape[2]):
            n = rows[i, 1, c]
            now = -rows[i, 0, c] / ((beta + np.sqrt(n)) / eta + l2)
            lam, base, Lam = push[k, 2, c], push[k, 3, c], push[k, 4, c]
            u = joint(now, rows[i, 2, c], base, Lam, push[k, 0, c], lam)
            n += push[k, 1, c]
            rows[i, 0, c] = -u * ((beta + np.sqrt(n)) / eta + l2)
            rows[i, 1, c] = n
            rows[i, 2, c] += lam


@njit(nogil=True, cache=True, error_model="numpy")
def ftrl_values(rows: F32, eta: Scalar, beta: Scalar, l2: Scalar, l1: Scalar, out: F32) -> None:
    """Fill `out` (m, width) with the weights that the dual stands for."""
    for i in range(rows.shape[0]):
        for c in range(rows.shape[2]):
            D = (beta + np.sqrt(rows[i, 1, c])) / eta + l2
            u = -rows[i, 0, c] / D
            out[i, c] = np.copysign(np.maximum(abs(u) - l1 / D, np.float32(0)), u)


@njit(nogil=True, cache=True, error_model="numpy")
def ftrl_duals(values: F32, eta: Scalar, beta: Scalar, rows: F32) -> None:
    """Set fresh rows so that their weights, before any sample, are `values` (m, width)."""
    for i in range(rows.shape[0]):
        for c in range(rows.shape[2]):
            rows[i, 0, c] = -values[i, c] * (beta / eta)
