"""One rating of SGD, in vectors: the error, the gradients and the steps of `_mf_sgd`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from daskps.kernels._vectors import FLOAT, LANES, Vectors, row

BIAS, SUM, BIAS_SUM = range(3)
"""What stands beside the factors of a row: sums are those of squared gradients."""
N_SIDE = 4
"""Numbers beside a row; the last one is room."""


def visit(width: int, learnt: int, biases: bool) -> Any:
    """Return ``visit(P, Q, side_P, side_Q, u, i, r, eta, l2, bias_l2, per_factor)``, in loops.

    It steps the rows of user `u` and item `i`, unsigned, for a rating `r`, and returns the error
    before. Rows have `width` numbers of which the first `learnt` change, multiples of `LANES`.
    """

    def rating(
        typing_context: Any,
        P: Any,
        Q: Any,
        side_P: Any,
        side_Q: Any,
        u: Any,
        i: Any,
        r: Any,
        eta: Any,
        l2: Any,
        bias_l2: Any,
        per_factor: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            rows = [
                row(context, builder, kind, array, number)
                for kind, array, number in zip(
                    signature.args[:4], args[:4], (args[4], args[5], args[4], args[5]), strict=True
                )
            ]
            return _rating(Vectors(builder), rows, args[6:], width, learnt, biases)

        arrays = (P, Q, side_P, side_Q, u, i)
        return types.float32(*arrays, *[types.float32] * 5), codegen

    return intrinsic(rating)


def _rating(
    v: Vectors, rows: Sequence[Any], numbers: Sequence[Any], width: int, learnt: int, biases: bool
) -> Any:
    b = v.builder
    (p_at, q_at, u_at, i_at), (r, eta, l2, bias_l2, per_factor) = rows, numbers
    u, i = v.load(u_at, N_SIDE), v.load(i_at, N_SIDE)
    p, q = v.spans(p_at, width), v.spans(q_at, width)
    # e = r - b_u - b_i - <p, q>
    distance = b.fsub(b.fsub(r, v.get(u, BIAS)), v.get(i, BIAS))
    e = b.fsub(distance, v.dot(p, q))
    # s = eta / sqrt(g), of factors and biases
    sums = v.pick(u, i, [SUM, BIAS_SUM, N_SIDE + SUM, N_SIDE + BIAS_SUM])
    steps = b.fdiv(v.spread(eta, 4), v.root(sums))
    s_u, s_bu, s_i, s_bi = (v.get(steps, at) for at in range(4))
    error, shrink = v.spread(e, LANES), v.spread(b.fsub(FLOAT(0.0), l2), LANES)
    step_p, step_q = v.spread(s_u, LANES), v.spread(s_i, LANES)
    zero = ir.Constant(ir.VectorType(FLOAT, LANES), [0.0] * LANES)
    square_p, square_q = zero, zero
    for f in range(learnt // LANES):
        x, y = p[f], q[f]
        # the gradients e q - l p and e p - l q
        g = v.fma(error, y, b.fmul(shrink, x))
        h = v.fma(error, x, b.fmul(shrink, y))
        square_p, square_q = v.fma(g, g, square_p), v.fma(h, h, square_q)
        v.store(v.fma(step_p, g, x), p_at, f * LANES)
        v.store(v.fma(step_q, h, y), q_at, f * LANES)
    of_p, of_q = v.totals(square_p, square_q)
    for side, at, square, step in ((u, u_at, of_p, s_bu), (i, i_at, of_q, s_bi)):
        none = FLOAT(0.0)
        moved, by = [none, square, none, none], [none, per_factor, none, none]
        if biases:
            g = b.fsub(e, b.fmul(bias_l2, v.get(side, BIAS)))
            moved[BIAS] = moved[BIAS_SUM] = g
            by[BIAS], by[BIAS_SUM] = step, g
        v.store(v.fma(v.pack(moved), v.pack(by), side), at)
    return e
