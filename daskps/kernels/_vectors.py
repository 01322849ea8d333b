"""Vectors of float32 in the compiler's own language, for loops over rows of factors.

From loops in Python over rows that may overlap, as far as it knows, the compiler makes code with
tests and reloads that takes several times as long. Every sum has one fixed order and every product
that is added is fused, so that the bits are those of any processor that can do it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector, and what rows are padded to a multiple of."""

FLOAT = ir.FloatType()


class Vectors:
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
        return self.builder.inttoptr(there, ir.VectorType(FLOAT, length).as_pointer())

    def spread(self, number: Any, length: int) -> Any:
        """Return a vector of copies."""
        return self.pack([number] + [None] * (length - 1), [0] * length)

    def pack(self, numbers: Sequence[Any], order: Sequence[int] | None = None) -> Any:
        """Return a vector of numbers; None leaves a place undefined."""
        kind = ir.VectorType(FLOAT, len(numbers))
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

    def spans(self, address: Any, width: int) -> list[Any]:
        """Return the vectors of a row of `width` numbers."""
        return [self.load(address, LANES, f) for f in range(0, width, LANES)]

    def dot(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        """Return the product of two rows."""
        products = self.builder.fmul(a[0], b[0])
        for x, y in zip(a[1:], b[1:], strict=True):
            products = self.fma(x, y, products)
        return self.total(products)

    def add(self, address: Any, factor: Any, a: Sequence[Any]) -> None:
        """Add `factor` times a row to the row at an address."""
        by = self.spread(factor, LANES)
        for at, x in enumerate(a):
            before = self.load(address, LANES, at * LANES)
            self.store(self.fma(by, x, before), address, at * LANES)


def row(context: Any, builder: Any, kind: Any, array: Any, number: Any) -> Any:
    """Return the address of a row of an array of rows."""
    view, word = context.make_array(kind)(context, builder, array), ir.IntType(64)
    number = number if number.type == word else builder.zext(number, word)
    offset = builder.mul(number, builder.extract_value(view.strides, 0))
    return builder.add(builder.ptrtoint(view.data, word), offset)


@functools.cache
def project(width: int) -> Any:
    """Return ``project(A, a, V, v, O, o, t, c)``: O[o] += (t - c <A[a], V[v]>) A[a].

    Rows have `width` numbers, a multiple of `LANES`; numbers of rows are unsigned.
    """

    def projected(
        typing_context: Any, A: Any, a: Any, V: Any, v: Any, O: Any, o: Any, t: Any, c: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            own, other, out = (
                row(context, builder, kinds[n], args[n], args[n + 1]) for n in (0, 2, 4)
            )
            vectors = Vectors(builder)
            x = vectors.spans(own, width)
            product = vectors.dot(x, vectors.spans(other, width))
            factor = builder.fsub(args[6], builder.fmul(args[7], product))
            vectors.add(out, factor, x)
            return context.get_dummy_value()

        return types.void(A, a, V, v, O, o, types.float32, types.float32), codegen

    return intrinsic(projected)


@functools.cache
def add(width: int) -> Any:
    """Return ``add(O, o, s, A, a)``: O[o] += s A[a]; see `project`."""

    def added(typing_context: Any, O: Any, o: Any, s: Any, A: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            out = row(context, builder, kinds[0], args[0], args[1])
            own = row(context, builder, kinds[3], args[3], args[4])
            vectors = Vectors(builder)
            vectors.add(out, args[2], vectors.spans(own, width))
            return context.get_dummy_value()

        return types.void(O, o, types.float32, A, a), codegen

    return intrinsic(added)


@functools.cache
def dot(width: int) -> Any:
    """Return ``dot(A, a, B, b)``, the product of two rows; see `project`."""

    def product(typing_context: Any, A: Any, a: Any, B: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            rows = (row(context, builder, kinds[n], args[n], args[n + 1]) for n in (0, 2))
            vectors = Vectors(builder)
            return vectors.dot(*(vectors.spans(at, width) for at in rows))

        return types.float32(A, a, B, b), codegen

    return intrinsic(product)


def _above(typing_context: Any, scores: Any, number: Any, at: Any, least: Any) -> Any:
    """Return whether any of the `LANES` numbers of a row from column `at` on is above `least`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, word = Vectors(builder), ir.IntType(64)
        start = row(context, builder, signature.args[0], args[0], args[1])
        column = args[2] if args[2].type == word else builder.zext(args[2], word)
        numbers = vectors.load(builder.add(start, builder.mul(column, word(4))), LANES)
        larger = builder.fcmp_ordered(">", numbers, vectors.spread(args[3], LANES))
        bits = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(larger, bits), bits(0))

    return types.boolean(scores, number, at, types.float32), codegen


above: Any = intrinsic(_above)
"""``above(scores, row, at, least)``, in compiled code."""
