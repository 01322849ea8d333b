"""One rating of SGD, in vectors: the error, the gradients and the steps of `_mf_sgd`.

Written in the compiler's own language: from loops over rows that may overlap, as far as it knows,
it makes code with tests and reloads that takes twice as long. Every sum has one fixed order and
every product that is added is fused, so that the bits are those of any processor that can do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector, and what rows are padded to a multiple of."""

BIAS, SUM, BIAS_SUM = range(3)
"""What stands beside the factors of a row: sums are those of squared gradients."""
N_SIDE = 4
"""Numbers beside a row; the last one is room."""

_FLOAT = ir.FloatType()


class _Vectors:
    """Arithmetic on vectors of float32."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def _intrinsic(self, name: str, kind: Any, *args: Any) -> Any:
        suffix = f"v{kind.count}f32"
        full, module = f"llvm.{name}.{suffix}", self.builder.module
        function = module.globals.get(full)
        if function is None:
            function = ir.Function(module, ir.FunctionType(kind, [kind] * len(args)), full)
        return self.builder.call(function, args)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, rounded once."""
        return self._intrinsic("fma", a.type, a, b, c)

    def root(self, a: Any) -> Any:
        """Return the square roots."""
        return self._intrinsic("sqrt", a.type, a)

    def load(self, address: Any, length: int, at: int = 0) -> Any:
        """Return `length` numbers from number `at` of an address on."""
        return self.builder.load(self._pointer(address, length, at), align=4)

    def store(self, value: Any, address: Any, at: int = 0) -> None:
        """Store a vector from number `at` of an address on."""
        self.builder.store(value, self._pointer(address, value.type.count, at), align=4)

    def _pointer(self, address: Any, length: int, at: int) -> Any:
        there = self.builder.add(address, address.type(4 * at))
        return self.builder.inttoptr(there, ir.VectorType(_FLOAT, length).as_pointer())

    def spread(self, number: Any, length: int) -> Any:
        """Return a vector of copies."""
        return self.pack([number] + [None] * (length - 1), [0] * length)

    def pack(self, numbers: Sequence[Any], order: Sequence[int] | None = None) -> Any:
        """Return a vector of numbers; None leaves a place undefined."""
        kind = ir.VectorType(_FLOAT, len(numbers))
        found = ir.Constant(kind, ir.Undefined)
        for at, number in enumerate(numbers):
            if number is not None:
                found = self.builder.insert_element(found, number, ir.IntType(32)(at))
        return found if order is None else self.pick(found, found, order)

    def pick(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Return those of the numbers of two vectors at the places `order`."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
        return self.builder.shuffle_vector(a, b, mask)

    def get(self, a: Any, at: int) -> Any:
        """Return one number."""
        return self.builder.extract_element(a, ir.IntType(32)(at))

    def totals(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return the sums of two vectors, halves added to halves."""
        while (half := a.type.count // 2) > 1:
            a, b = (self.halved(x) for x in (a, b))
            assert a.type.count == half
        ends = self.pick(a, b, [0, 2]), self.pick(a, b, [1, 3])
        both = self.builder.fadd(*ends)
        return self.get(both, 0), self.get(both, 1)

    def total(self, a: Any) -> Any:
        """Return the sum of a vector, halves added to halves."""
        while a.type.count > 1:
            a = self.halved(a)
        return self.get(a, 0)

    def halved(self, a: Any) -> Any:
        """Return the sum of the first half and the second."""
        half = a.type.count // 2
        parts = (self.pick(a, a, range(start, start + half)) for start in (0, half))
        return self.builder.fadd(*parts)


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
                _row(context, builder, kind, array, number)
                for kind, array, number in zip(
                    signature.args[:4], args[:4], (args[4], args[5], args[4], args[5]), strict=True
                )
            ]
            return _rating(_Vectors(builder), rows, args[6:], width, learnt, biases)

        arrays = (P, Q, side_P, side_Q, u, i)
        return types.float32(*arrays, *[types.float32] * 5), codegen

    return intrinsic(rating)


def _row(context: Any, builder: Any, kind: Any, array: Any, number: Any) -> Any:
    """Return the address of a row of an array of rows."""
    view, word = context.make_array(kind)(context, builder, array), ir.IntType(64)
    number = number if number.type == word else builder.zext(number, word)
    offset = builder.mul(number, builder.extract_value(view.strides, 0))
    return builder.add(builder.ptrtoint(view.data, word), offset)


def _rating(
    v: _Vectors, rows: Sequence[Any], numbers: Sequence[Any], width: int, learnt: int, biases: bool
) -> Any:
    b = v.builder
    (p_at, q_at, u_at, i_at), (r, eta, l2, bias_l2, per_factor) = rows, numbers
    u, i = v.load(u_at, N_SIDE), v.load(i_at, N_SIDE)
    p = [v.load(p_at, LANES, f) for f in range(0, width, LANES)]
    q = [v.load(q_at, LANES, f) for f in range(0, width, LANES)]
    # e = r - b_u - b_i - <p, q>
    products = b.fmul(p[0], q[0])
    for x, y in zip(p[1:], q[1:], strict=True):
        products = v.fma(x, y, products)
    distance = b.fsub(b.fsub(r, v.get(u, BIAS)), v.get(i, BIAS))
    e = b.fsub(distance, v.total(products))
    # s = eta / sqrt(g), of factors and biases
    sums = v.pick(u, i, [SUM, BIAS_SUM, N_SIDE + SUM, N_SIDE + BIAS_SUM])
    steps = b.fdiv(v.spread(eta, 4), v.root(sums))
    s_u, s_bu, s_i, s_bi = (v.get(steps, at) for at in range(4))
    error, shrink = v.spread(e, LANES), v.spread(b.fsub(_FLOAT(0.0), l2), LANES)
    step_p, step_q = v.spread(s_u, LANES), v.spread(s_i, LANES)
    zero = ir.Constant(ir.VectorType(_FLOAT, LANES), [0.0] * LANES)
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
        none = _FLOAT(0.0)
        moved, by = [none, square, none, none], [none, per_factor, none, none]
        if biases:
            g = b.fsub(e, b.fmul(bias_l2, v.get(side, BIAS)))
            moved[BIAS] = moved[BIAS_SUM] = g
            by[BIAS], by[BIAS_SUM] = step, g
        v.store(v.fma(v.pack(moved), v.pack(by), side), at)
    return e
