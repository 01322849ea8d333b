"""A draw from a list of cells by weights that are products, 16 at a time.

Owns what `_lanes` is for numbers of all topics, for lists of those that are there: cells are
``(topic << bits) | count``, 16 of them are read at once, and the number of each topic is fetched.
Lists begin where they like, and end in as many zeros as fill up their last 16.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from daskps.kernels._lanes import (
    BITS,
    FLOATS,
    I32,
    I64,
    INTS,
    LANES,
    ZEROS,
    array_data,
    cumulated,
    drawn,
    everywhere,
    vector_at,
)


def _weigh(
    typing_context: Any,
    cells: Any,
    start: Any,
    old: Any,
    phi: Any,
    weights: Any,
    at: Any,
    blocks: Any,
    sums: Any,
    number: Any,
) -> Any:
    """Fill `weights` with ``count * phi[topic]``, and `sums` by lane; return where `old` is.

    Parameters
    ----------
    cells, start
        Unsigned integers, half of whose bits are the count's; where the list begins.
    old
        A topic.
    phi
        float32, by topic.
    weights, at
        float32; where the first of `blocks` times 16 goes.
    blocks
        Vectors of 16, at least one.
    sums, number
        float32; the 16 sums go to ``16 * number``.

    Returns
    -------
    place
        Of topic `old` in the list; 0 if it is not there.
    """
    signature = types.uint64(cells, start, old, phi, weights, at, blocks, sums, number)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(number: int) -> Any:
            return array_data(context, builder, signature, args, number)

        kind = ir.IntType(signature.args[0].dtype.bitwidth)
        source, out = builder.gep(data(0), [args[1]]), builder.gep(data(4), [args[5]])
        total, place = _products(builder, source, kind, args[2], data(3), out, args[6])
        builder.store(total, vector_at(builder, data(7), args[8]), align=4)
        return place

    return signature, codegen


def _products(
    builder: Any, cells: Any, kind: Any, old: Any, phi: Any, out: Any, blocks: Any
) -> tuple[Any, Any]:
    """Make and store all weights; return their sums by lane, and the place of `old`."""
    before = builder.basic_block
    body, after = builder.append_basic_block("weigh"), builder.append_basic_block("weighed")
    builder.branch(body)
    builder.position_at_end(body)
    number, sums, place = builder.phi(I64), builder.phi(FLOATS), builder.phi(I64)
    first = builder.shl(number, I64(BITS))
    topics, counts = _halves(builder, builder.gep(cells, [first]), kind)
    product = builder.fmul(builder.sitofp(counts, FLOATS), _fetched(builder, phi, topics))
    to = builder.bitcast(builder.gep(out, [first]), FLOATS.as_pointer())
    builder.store(product, to, align=4)
    same = builder.icmp_signed("==", topics, everywhere(builder, builder.trunc(old, I32)))
    there = builder.icmp_signed("!=", counts, ir.Constant(INTS, [0] * LANES))
    found = builder.bitcast(builder.and_(same, there), ir.IntType(LANES))
    lane = builder.cttz(builder.zext(found, I64), ir.IntType(1)(0))
    any_found = builder.icmp_unsigned("!=", found, ir.IntType(LANES)(0))
    place_now = builder.select(any_found, builder.add(first, lane), place)
    more, next_number = builder.fadd(sums, product), builder.add(number, I64(1))
    builder.cbranch(builder.icmp_unsigned("<", next_number, blocks), body, after)
    for phi_node, at_first, then in (
        (number, I64(0), next_number),
        (sums, ZEROS, more),
        (place, I64(0), place_now),
    ):
        phi_node.add_incoming(at_first, before)
        phi_node.add_incoming(then, body)
    builder.position_at_end(after)
    return more, place_now


def _halves(builder: Any, pointer: Any, kind: Any) -> tuple[Any, Any]:
    """Return topics and counts of 16 cells as vectors of 32 bits."""
    vector, half = ir.VectorType(kind, LANES), kind.width // 2
    cells = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=kind.width // 8)
    topics = builder.lshr(cells, ir.Constant(vector, [half] * LANES))
    counts = builder.and_(cells, ir.Constant(vector, [2**half - 1] * LANES))
    if kind.width > INTS.element.width:
        topics, counts = builder.trunc(topics, INTS), builder.trunc(counts, INTS)
    return topics, counts


def _fetched(builder: Any, numbers: Any, places: Any) -> Any:
    """Return the vector of the numbers at 16 places."""
    found = ir.Constant(FLOATS, ir.Undefined)
    for lane in range(LANES):
        place = builder.zext(builder.extract_element(places, I32(lane)), I64)
        number = builder.load(builder.gep(numbers, [place]), align=4)
        found = builder.insert_element(found, number, I32(lane))
    return found


def _cumulate(typing_context: Any, sums: Any, number: Any, which: Any, less: Any) -> Any:
    """Turn the sums of `weigh` into cumulative sums; return their total.

    Parameters
    ----------
    sums, number
        float32; the 16 sums are those from ``16 * number`` on.
    which, less
        The weight at place `which` counts for so much less.
    """
    signature = types.float32(sums, number, which, less)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = vector_at(builder, array_data(context, builder, signature, args, 0), args[1])
        found = cumulated(builder, builder.load(place, align=4), args[2], args[3])
        builder.store(found, place, align=4)
        return builder.extract_element(found, I32(LANES - 1))

    return signature, codegen


def _lane_of(typing_context: Any, sums: Any, number: Any, target: Any) -> Any:
    """Return the lane at which the sums of `cumulate` are above `target`, and what is left in it.

    Parameters
    ----------
    sums, number
        As of `cumulate`.
    target
        float32, below the total.
    """
    result = types.Tuple((types.uint64, types.float32))
    signature = result(sums, number, target)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = vector_at(builder, array_data(context, builder, signature, args, 0), args[1])
        lane, rest = drawn(builder, builder.load(place, align=4), args[2])
        return context.make_tuple(builder, result, [builder.zext(lane, I64), rest])

    return signature, codegen


weigh: Any = intrinsic(_weigh)
"""``weigh(cells, start, old, phi, weights, at, blocks, sums, number)``, in compiled code."""
cumulate: Any = intrinsic(_cumulate)
"""``cumulate(sums, number, which, less)``, in compiled code."""
lane_of: Any = intrinsic(_lane_of)
"""``lane_of(sums, number, target)``, in compiled code."""
