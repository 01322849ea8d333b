"""Asking the processor for a row of memory before it is needed.

The rows of a slice are scattered over a working state, and those of a push over a table, larger
than any cache; waiting for each in turn was most of the time of a training pass (1.7 x on the
reference data) and a third of that of a commit.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Bring the start of ``array[row]`` to the cache for writing; `row` must be unsigned."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        word, byte = ir.IntType(64), ir.IntType(8).as_pointer()
        number = args[1] if args[1].type == word else builder.zext(args[1], word)
        offset = builder.mul(number, builder.extract_value(view.strides, 0))
        address = builder.inttoptr(builder.add(builder.ptrtoint(view.data, word), offset), byte)
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # for writing, to stay in the nearest cache, data
        builder.call(hint, [address, flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, row), codegen


prefetch: Any = intrinsic(_prefetch)
"""``prefetch(array, row)``, in compiled code."""
