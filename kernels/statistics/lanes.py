"""Sixteen streams side by side in vector registers, for numba: a type with operators, and what it lacks otherwise.

Everything here is expanded where it is used.  No address is checked: that is up
to whoever asks.
"""

from __future__ import annotations

import operator
from typing import Any, Final

from numba import types
from numba.core.cgutils import get_or_insert_function, ir
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

STREAMS: Final = 16

_I1, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 16, 32, 64))
_WORDS, _PIXELS, _EIGHT = ir.VectorType(_I64, STREAMS), ir.VectorType(_I32, STREAMS), ir.VectorType(_I32, 8)


class _Lanes(types.Type):
    """A 64-bit number of each stream, in vector registers."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES: Final = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)


def _lane_by_lane(sign: Any, instruction: str) -> None:
    """Give the lanes an operator."""

    @infer_global(sign)
    class Template(ConcreteTemplate):
        cases = [signature(_LANES, _LANES, _LANES)]  # noqa: RUF012

    @lower_builtin(sign, _LANES, _LANES)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


for _sign, _instruction in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.xor, "xor"),
    (operator.lshift, "shl"),
    (operator.rshift, "lshr"),
):
    _lane_by_lane(_sign, _instruction)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """The address of an array's element, not checked."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector whose elements are all ``value``."""
    nothing = ir.Constant(vector, ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(nothing, value, _I32(0)), nothing, ir.Constant(ir.VectorType(_I32, vector.count), None)
    )


@intrinsic
def spread(typing: Any, value: Any) -> Any:
    """The same number in every lane."""
    return _LANES(types.int64), lambda _, builder, signature, arguments: _splat(builder, arguments[0], _WORDS)


@intrinsic
def read(typing: Any, array: Any) -> Any:
    """Lanes from an array of int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], arguments[0], _I64(0))
        return builder.load(builder.bitcast(at, _WORDS.as_pointer()), align=8, typ=_WORDS)

    return _LANES(array), generate


@intrinsic
def write(typing: Any, lanes: Any, array: Any) -> Any:
    """Lanes to an array of int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _pointer(context, builder, signature.args[1], arguments[1], _I64(0))
        builder.store(arguments[0], builder.bitcast(at, _WORDS.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(_LANES, array), generate


@intrinsic
def words_at(typing: Any, data: Any, at: Any) -> Any:
    """What follows bit ``at`` of the data, highest bit first; `WIDEST` bits at least, not checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, at = arguments
        byte, words = builder.lshr(at, ir.Constant(_WORDS, [3] * STREAMS)), ir.Constant(_WORDS, ir.Undefined)
        for k in range(STREAMS):
            place = _pointer(context, builder, signature.args[0], data, builder.extract_element(byte, _I32(k)))
            word = builder.load(builder.bitcast(place, _I64.as_pointer()), align=1, typ=_I64)
            words = builder.insert_element(words, word, _I32(k))
        swap = get_or_insert_function(builder.module, ir.FunctionType(_WORDS, [_WORDS]), "llvm.bswap.v16i64")
        return builder.shl(builder.call(swap, [words]), builder.and_(at, ir.Constant(_WORDS, [7] * STREAMS)))

    return _LANES(data, _LANES), generate


@intrinsic
def leading_zeros(typing: Any, words: Any) -> Any:
    """Leading zero bits of words that are not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_WORDS, [_WORDS, _I1])
        return builder.call(get_or_insert_function(builder.module, kind, "llvm.ctlz.v16i64"), [arguments[0], _I1(1)])

    return _LANES(_LANES), generate


@intrinsic
def negative(typing: Any, lanes: Any) -> Any:
    """All ones in the lanes that are below zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ashr(arguments[0], ir.Constant(_WORDS, [63] * STREAMS))

    return _LANES(_LANES), generate


@intrinsic
def which(typing: Any, lanes: Any) -> Any:
    """The lanes that are below zero, a bit of each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        below = builder.icmp_signed("<", arguments[0], ir.Constant(_WORDS, None))
        return builder.zext(builder.bitcast(below, _I16), _I64)

    return types.int64(_LANES), generate


def _in_range(builder: Any, lanes: Any, mask: Any, zero: Any) -> Any:
    """Pixels of the encoder's type, shifted, from sums."""
    low = builder.and_(builder.trunc(lanes, _PIXELS), _splat(builder, builder.trunc(mask, _I32), _PIXELS))
    return builder.add(low, _splat(builder, builder.trunc(zero, _I32), _PIXELS))


@intrinsic
def store(typing: Any, sums: Any, mask: Any, zero: Any, out: Any, places: Any, x: Any) -> Any:
    """A pixel of every lane, at ``x`` from its place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, mask, zero, out, places, x = arguments
        pixels, beginning = _in_range(builder, sums, mask, zero), _pointer(context, builder, signature.args[3], out, x)
        for k in range(STREAMS):
            place = builder.load(_pointer(context, builder, signature.args[4], places, _I64(k)))
            at = builder.gep(beginning, [place])
            builder.store(builder.extract_element(pixels, _I32(k)), at)
        return context.get_dummy_value()

    return types.void(_LANES, types.int64, types.int64, out, places, types.int64), generate


@intrinsic
def store_eight(typing: Any, sums: Any, mask: Any, zero: Any, out: Any, places: Any, x: Any) -> Any:
    """Eight pixels of every lane, from ``x`` on from its place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, mask, zero, out, places, x = arguments
        rows = [_in_range(builder, builder.extract_value(sums, k), mask, zero) for k in range(8)]
        low, high = ([half + k // 2 + k % 2 * STREAMS for k in range(STREAMS)] for half in (0, 8))
        for _ in range(3):  # each interleaves the first four with the last four: the transpose, after three times
            pairs = [(rows[k], rows[k + 4], ir.Constant(_PIXELS, order)) for k in range(4) for order in (low, high)]
            rows = [builder.shuffle_vector(*pair) for pair in pairs]
        beginning = _pointer(context, builder, signature.args[3], out, x)
        for k in range(STREAMS):
            half = ir.Constant(_EIGHT, [k % 2 * 8 + n for n in range(8)])
            place = builder.load(_pointer(context, builder, signature.args[4], places, _I64(k)))
            at = builder.gep(beginning, [place])
            pixels = builder.shuffle_vector(rows[k // 2], rows[k // 2], half)
            builder.store(pixels, builder.bitcast(at, _EIGHT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(sums, types.int64, types.int64, out, places, types.int64), generate


@intrinsic
def word_at(typing: Any, data: Any, byte: Any) -> Any:
    """Eight bytes from ``byte`` on, the first one highest; neither aligned nor checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], *arguments)
        return builder.bswap(builder.load(builder.bitcast(at, _I64.as_pointer()), align=1, typ=_I64))

    return types.uint64(data, types.int64), generate


@intrinsic
def prefetch(typing: Any, data: Any, byte: Any) -> Any:
    """Ask for the cache line of a byte, which need not exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], *arguments)
        kind = ir.FunctionType(ir.VoidType(), [at.type, _I32, _I32, _I32])
        fetch = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [at, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(data, types.int64), generate
