"""Vector instructions that the compiler does not find by itself, as LLVM intermediate code.

Generic vector types, so that LLVM lowers them for any processor. Rounding is exact IEEE: nothing
is contracted or reordered.
"""

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

SUM_LANES = 16
MASK_LANES = 32
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
# The upper half of a float32.
_BFLOAT16_BITS = 16


def _vector(builder: Any, array: Any, kind: Any, start: Any, num: int) -> Any:
    """Load `num` values of a contiguous one-dimensional array.

    Args:
        builder: Of the code.
        array: The array.
        kind: Its type: of float32, or of int16 that are bits of bfloat16.
        start: Place of the first value.
        num: How many.
    """
    is_wide = kind.dtype == numba.float32
    vector = ir.VectorType(_FLOAT if is_wide else ir.IntType(_BFLOAT16_BITS), num)
    pointer = builder.bitcast(builder.gep(array.data, [start]), vector.as_pointer())
    if is_wide:
        return builder.load(pointer, align=4)
    bits = builder.zext(builder.load(pointer, align=2), ir.VectorType(_INT, num))
    shift = ir.Constant(bits.type, [_BFLOAT16_BITS] * num)
    return builder.bitcast(builder.shl(bits, shift), ir.VectorType(_FLOAT, num))


@intrinsic  # type: ignore[untyped-decorator]
def lane_sum(_: Any, left_D: Any, right_D: Any, by_distance: Any) -> Any:
    """Sum of products, or of squared differences: entry d goes to lane d % 16, lanes in order."""
    signature = numba.float32(left_D, right_D, by_distance)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        left = cgutils.create_struct_proxy(left_D)(context, builder, value=values[0])
        right = cgutils.create_struct_proxy(right_D)(context, builder, value=values[1])
        size = cgutils.unpack_tuple(builder, left.shape)[0]
        lanes = size.type(SUM_LANES)
        vector = ir.VectorType(_FLOAT, SUM_LANES)
        sums = cgutils.alloca_once_value(builder, vector([0.0] * SUM_LANES))

        def term(a: Any, b: Any) -> Any:
            difference = builder.fsub(a, b)
            return builder.fmul(
                builder.select(values[2], difference, a), builder.select(values[2], difference, b)
            )

        whole = builder.mul(builder.sdiv(size, lanes), lanes)
        with cgutils.for_range_slice(builder, size.type(0), whole, lanes) as (start, _count):
            a = _vector(builder, left, left_D, start, SUM_LANES)
            b = _vector(builder, right, right_D, start, SUM_LANES)
            builder.store(builder.fadd(builder.load(sums), term(a, b)), sums)
        with cgutils.for_range(builder, builder.sub(size, whole)) as loop:
            place = builder.add(whole, loop.index)
            one = term(
                builder.load(builder.gep(left.data, [place])),
                builder.load(builder.gep(right.data, [place])),
            )
            before = builder.load(sums)
            after = builder.fadd(builder.extract_element(before, loop.index), one)
            builder.store(builder.insert_element(before, after, loop.index), sums)
        total = _FLOAT(0.0)
        last = builder.load(sums)
        for lane in range(SUM_LANES):
            total = builder.fadd(total, builder.extract_element(last, _INT(lane)))
        return total

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def above_mask(_: Any, row_P: Any, start: Any, limit: Any) -> Any:
    """Bit i is set where row[start + i] > limit, for 32 values; NaN is never above.

    The row is of float32, or of bfloat16 as int16.
    """
    signature = numba.uint32(row_P, start, limit)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        row = cgutils.create_struct_proxy(row_P)(context, builder, value=values[0])
        found = _vector(builder, row, row_P, values[1], MASK_LANES)
        vector = ir.VectorType(_FLOAT, MASK_LANES)
        first = builder.insert_element(vector(ir.Undefined), values[2], _INT(0))
        order = ir.Constant(ir.VectorType(_INT, MASK_LANES), [0] * MASK_LANES)
        limits = builder.shuffle_vector(first, vector(ir.Undefined), order)
        return builder.bitcast(builder.fcmp_ordered(">", found, limits), ir.IntType(MASK_LANES))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def value_at(_: Any, row_P: Any, column: Any) -> Any:
    """A value of a row of float32, or of bfloat16 as int16, as float32."""
    signature = numba.float32(row_P, column)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        row = cgutils.create_struct_proxy(row_P)(context, builder, value=values[0])
        return builder.extract_element(_vector(builder, row, row_P, values[1], 1), _INT(0))

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(_: Any, mask: Any) -> Any:
    """Position of the lowest set bit; the mask is not 0."""
    signature = numba.intp(numba.uint32)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        place = builder.cttz(values[0], ir.IntType(1)(1))
        return builder.zext(place, ir.IntType(64))

    return signature, generate
