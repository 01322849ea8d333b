"""A draw by weights that are products, 16 at a time: what compilers do not make of a loop.

Owns a few instruction sequences, written for LLVM, which makes of them whatever vectors a processor
has. Weights of a lane stand 16 apart, so that a draw is that of a lane, by cumulative sums in one
vector, and then of one of the few weights in it. There is no branch that depends on the draw.
Either waits for its own results: several tokens are weighed, and then several lanes drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
BITS = 4
"""log2 of LANES."""
MOST = 16
"""Vectors that are weighed at most."""
LINE = 64
"""Bytes that come to a cache at a time."""
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
ZEROS = ir.Constant(FLOATS, [0.0] * LANES)
Step = Callable[[int, list[Any]], list[Any]]
"""Takes how many steps are left, itself among them, and values; returns the next values."""


def _weigh(
    typing_context: Any,
    counts: Any,
    start: Any,
    prior: Any,
    phi: Any,
    weights: Any,
    at: Any,
    blocks: Any,
    sums: Any,
    number: Any,
) -> Any:
    """Fill `weights` with ``(counts[start + k] + prior[k]) * phi[k]``, and `sums` by lane.

    Parameters
    ----------
    counts, start
        Unsigned integers; where the first of them stands.
    prior, phi
        float32, `blocks` times 16.
    weights, at
        float32; where the first of `blocks` times 16 goes.
    blocks
        Vectors of 16, at most `MOST`.
    sums, number
        float32; the 16 sums go to ``16 * number``.
    """
    signature = types.void(counts, start, prior, phi, weights, at, blocks, sums, number)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(number: int) -> Any:
            return array_data(context, builder, signature, args, number)

        count = ir.IntType(signature.args[0].dtype.bitwidth)
        source, out = builder.gep(data(0), [args[1]]), builder.gep(data(4), [args[5]])
        total = _products(builder, source, count, data(2), data(3), out, args[6])
        builder.store(total, vector_at(builder, data(7), args[8]), align=4)
        return context.get_dummy_value()

    return signature, codegen


def _draw(typing_context: Any, sums: Any, number: Any, which: Any, less: Any, u: Any) -> Any:
    """Draw a lane by the sums of `weigh`.

    Parameters
    ----------
    sums, number
        float32; the 16 sums are those from ``16 * number`` on.
    which, less
        The weight of topic `which` counts for so much less.
    u
        Number in [0, 1), float32.

    Returns
    -------
    lane, rest, total
        The lane, what is left of ``u * total`` in it, and the sum of weights.
    """
    result = types.Tuple((types.uint64, types.float32, types.float32))
    signature = result(sums, number, which, less, u)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = vector_at(builder, array_data(context, builder, signature, args, 0), args[1])
        lane, rest, total = _lane(builder, builder.load(place, align=4), *args[2:])
        return context.make_tuple(builder, result, [builder.zext(lane, I64), rest, total])

    return signature, codegen


def _number_below(typing_context: Any, weights: Any, at: Any, blocks: Any, rest: Any) -> Any:
    """Return how many cumulative sums of a lane's weights are not above `rest`.

    Parameters
    ----------
    weights, at
        float32; the lane's weights stand at `at` and every 16 numbers from there on.
    blocks
        How many they are, at most `MOST`.
    rest
        float32.
    """
    signature = types.uint64(weights, at, blocks, rest)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature, args, 0)
        end = builder.gep(data, [builder.add(args[1], builder.shl(args[2], I64(BITS)))])

        def compare(left: int, values: list[Any]) -> list[Any]:
            weight = builder.load(builder.gep(end, [I64(-left * LANES)]), align=4)
            s = builder.fadd(values[0], weight)
            below = builder.fcmp_ordered("<=", s, args[3])
            return [s, builder.add(values[1], builder.zext(below, I64))]

        return _unrolled(builder, args[2], [F32(0.0), I64(0)], compare)[1]

    return signature, codegen


def _ask(typing_context: Any, counts: Any, start: Any, lines: Any) -> Any:
    """Bring what stands from ``counts[start]`` on to the cache for writing.

    Parameters
    ----------
    lines
        Of `LINE` bytes, at most `MOST`.
    """
    signature = types.void(counts, start, lines)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        data = builder.gep(array_data(context, builder, signature, args, 0), [args[1]])
        end = builder.gep(builder.bitcast(data, byte), [builder.mul(args[2], I64(LINE))])
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)

        def ask(left: int, values: list[Any]) -> list[Any]:
            # for writing, to stay in the nearest cache, data
            builder.call(hint, [builder.gep(end, [I64(-left * LINE)]), I32(1), I32(3), I32(1)])
            return values

        _unrolled(builder, args[2], [], ask)
        return context.get_dummy_value()

    return signature, codegen


def array_data(context: Any, builder: Any, signature: Any, args: Any, number: int) -> Any:
    """Return where the numbers of an array that is an argument begin."""
    array = context.make_array(signature.args[number])
    return array(context, builder, args[number]).data


def vector_at(builder: Any, pointer: Any, number: Any) -> Any:
    """Return where a vector of an array of them stands."""
    first = builder.gep(pointer, [builder.shl(number, I64(BITS))])
    return builder.bitcast(first, FLOATS.as_pointer())


def _products(
    builder: Any, counts: Any, kind: Any, prior: Any, phi: Any, out: Any, blocks: Any
) -> Any:
    """Make and store all weights; return their sums by lane."""
    end = builder.shl(blocks, I64(BITS))
    ends = [builder.gep(x, [end]) for x in (counts, prior, phi, out)]

    def add(left: int, values: list[Any]) -> list[Any]:
        def at(pointer: Any, vector: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [I64(-left * LANES)]), vector.as_pointer())

        n = builder.load(at(ends[0], ir.VectorType(kind, LANES)), align=kind.width // 8)
        n = builder.sitofp(builder.zext(n, INTS), FLOATS)
        whole = builder.fadd(n, builder.load(at(ends[1], FLOATS), align=4))
        product = builder.fmul(whole, builder.load(at(ends[2], FLOATS), align=4))
        builder.store(product, at(ends[3], FLOATS), align=4)
        return [builder.fadd(values[0], product)]

    (sums,) = _unrolled(builder, blocks, [ZEROS], add)
    return sums


def _unrolled(builder: Any, n: Any, first: list[Any], step: Step) -> list[Any]:
    """Do `step` `n` times, at most `MOST`, without a loop; return what it returned last.

    Compilers take eight steps of a loop together and the rest one by one, which is all there is of
    a few. Here the place to begin is jumped to, and the steps from there on stand one behind the
    other; so where each is in memory is known by how many are left.
    """
    start = came = builder.basic_block
    blocks = [builder.append_basic_block("step") for _ in range(MOST + 1)]
    jump = builder.switch(n, blocks[MOST])
    values = first
    for block, left in zip(blocks, range(MOST, -1, -1), strict=True):
        builder.position_at_end(block)
        merged = [builder.phi(x.type) for x in first]
        for phi, begun, so_far in zip(merged, first, values, strict=True):
            phi.add_incoming(begun, start)
            if left < MOST:
                phi.add_incoming(so_far, came)
        if left:
            jump.add_case(I64(left), block)
            values, came = step(left, merged), block
            builder.branch(blocks[MOST - left + 1])
    return merged


def _lane(builder: Any, sums: Any, which: Any, less: Any, u: Any) -> tuple[Any, Any, Any]:
    """Draw a lane by cumulative sums."""
    sums = cumulated(builder, sums, which, less)
    total = builder.extract_element(sums, I32(LANES - 1))
    lane, rest = drawn(builder, sums, builder.fmul(u, total))
    return lane, rest, total


def cumulated(builder: Any, sums: Any, which: Any, less: Any) -> Any:
    """Return cumulative sums, where lane `which`, modulo 16, counts for so much less."""
    lane = builder.trunc(builder.and_(which, I64(LANES - 1)), I32)
    lanes = ir.Constant(INTS, list(range(LANES)))
    mine = builder.icmp_signed("==", lanes, everywhere(builder, lane))
    sums = builder.fsub(sums, builder.select(mine, everywhere(builder, less), ZEROS))
    shift = 1
    while shift < LANES:
        sums = builder.fadd(sums, _moved(builder, sums, shift))
        shift *= 2
    return sums


def drawn(builder: Any, sums: Any, target: Any) -> tuple[Any, Any]:
    """Return the first lane whose cumulative sum is above `target`, and what is left in it."""
    below = builder.fcmp_ordered("<=", sums, everywhere(builder, target))
    found = builder.ctpop(builder.zext(builder.bitcast(below, ir.IntType(LANES)), I32))
    last = I32(LANES - 1)
    lane = builder.select(builder.icmp_unsigned("<", found, last), found, last)
    before = builder.extract_element(_moved(builder, sums, 1), lane)
    return lane, builder.fsub(target, before)


def everywhere(builder: Any, x: Any) -> Any:
    """Return a vector of a number."""
    vector = ir.VectorType(x.type, LANES)
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, x, I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(INTS, [0] * LANES))


def _moved(builder: Any, vector: Any, by: int) -> Any:
    """Return a vector moved up by some lanes, zeros first."""
    order = [LANES + i if i < by else i - by for i in range(LANES)]
    return builder.shuffle_vector(vector, ZEROS, ir.Constant(INTS, order))


weigh: Any = intrinsic(_weigh)
"""``weigh(counts, start, prior, phi, weights, at, blocks, sums, number)``, in compiled code."""
draw: Any = intrinsic(_draw)
"""``draw(sums, number, which, less, u)``, in compiled code."""
number_below: Any = intrinsic(_number_below)
"""``number_below(weights, at, blocks, rest)``, in compiled code."""
ask: Any = intrinsic(_ask)
"""``ask(counts, start, lines)``, in compiled code."""
