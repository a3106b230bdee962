"""Vector types with operators for numba: sixteen pixels, or sixteen streams of bits, side by side in registers.

numba leaves it to LLVM to vectorise loops, and a missed loop costs a factor of four to forty.  Compiled functions
use these types like numbers instead.  LLVM splits vectors that are wider than the processor's registers, so that the
same code runs everywhere.  Comparisons with NaN are false.  The caller must check addresses.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, Final

from numba import types
from numba.core.cgutils import get_or_insert_function, ir
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES: Final = 16

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_PIXELS, _EIGHT = ir.VectorType(_I32, LANES), ir.VectorType(_I32, 8)


class _Vector(types.Type):
    """One number or truth value in each lane."""

    def __init__(self, name: str, element: Any) -> None:
        super().__init__(name=name)
        self.code = ir.VectorType(element, LANES)


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Vector) -> None:
        super().__init__(manager, kind, kind.code)


_WORDS, _INTS, _MASK = _Vector("Words", _I64), _Vector("Ints", _I32), _Vector("Mask", _I1)
_SINGLES, _DOUBLES = _Vector("Singles", ir.FloatType()), _Vector("Doubles", ir.DoubleType())
#: Vector type by the element type of an array.
_VECTORS: Final = {types.int64: _WORDS, types.int32: _INTS, types.float32: _SINGLES, types.float64: _DOUBLES}


def _operator(sign: Any, kind: _Vector, instruction: str) -> None:
    """Give a kind of vector an operator: an LLVM instruction, or a comparison."""
    result = _MASK if "<" in instruction else kind

    @infer_global(sign)
    class Template(ConcreteTemplate):
        cases = [signature(result, kind, kind)]  # noqa: RUF012

    @lower_builtin(sign, kind, kind)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if "<" not in instruction:
            return getattr(builder, instruction)(*arguments)
        return (builder.icmp_signed if kind in (_WORDS, _INTS) else builder.fcmp_ordered)(instruction, *arguments)


for _sign, _integer, _real in (
    (operator.add, "add", "fadd"),
    (operator.sub, "sub", "fsub"),
    (operator.mul, "mul", "fmul"),
    (operator.lt, "<", "<"),
    (operator.le, "<=", "<="),
    (operator.truediv, "", "fdiv"),
    (operator.and_, "and_", ""),
    (operator.or_, "or_", ""),
    (operator.xor, "xor", ""),
    (operator.lshift, "shl", ""),
    (operator.rshift, "lshr", ""),
):
    for _kind, _instruction in ((_WORDS, _integer), (_SINGLES, _real), (_DOUBLES, _real)):
        if _instruction:
            _operator(_sign, _kind, _instruction)
_operator(operator.lt, _INTS, "<")
_operator(operator.or_, _MASK, "or_")
_operator(operator.and_, _MASK, "and_")
_operator(operator.xor, _MASK, "xor")


def written(result: Any, **casts: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make an intrinsic from a function that writes code.

    Parameters
    ----------
    result : `numba.types.Type` or callable
        Type of the result, or a function that derives it from the types of the arguments.
    casts
        Types that arguments are converted to, by name; others are taken as they are.

    Returns
    -------
    decorate : callable
        Takes ``write(builder, *values)``, which gets the address of the first element in place of an array, and
        returns the result's value, if there is one.
    """

    def decorate(write: Callable[..., Any]) -> Any:
        plain = inspect.signature(write)
        names = [*plain.parameters][1:]

        def typed(typing: Any, *given: Any) -> Any:
            kinds = [casts.get(name, kind) for name, kind in zip(names, given, strict=True)]

            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                values = [
                    context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                    for kind, value in zip(signature.args, arguments, strict=True)
                ]
                value = write(builder, *values)
                return context.get_dummy_value() if value is None else value

            return (result if isinstance(result, types.Type) else result(*kinds))(*kinds), generate

        typed.__name__, typed.__doc__ = write.__name__, write.__doc__
        typed.__signature__ = plain  # type: ignore[attr-defined]  # numba binds arguments by it
        return intrinsic(typed)

    return decorate


def _splat(builder: Any, value: Any) -> Any:
    """Put the same number into every lane."""
    kind = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_PIXELS, None))


words = written(_WORDS, value=types.int64)(_splat)
ints = written(_INTS, value=types.int32)(_splat)
singles = written(_SINGLES, value=types.float32)(_splat)
doubles = written(_DOUBLES, value=types.float64)(_splat)


@written(_DOUBLES)
def double(builder: Any, vector: Any) -> Any:
    """Convert float32 to float64."""
    return builder.fpext(vector, _DOUBLES.code)


@written(_SINGLES)
def real(builder: Any, vector: Any) -> Any:
    """Convert int32 to float32."""
    return builder.sitofp(vector, _SINGLES.code)


@written(_SINGLES)
def single(builder: Any, vector: Any) -> Any:
    """Convert float64 to float32."""
    return builder.fptrunc(vector, _SINGLES.code)


@written(lambda mask, yes, no: yes)
def where(builder: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Choose one or the other, lane by lane."""
    return builder.select(mask, yes, no)


@written(lambda vector: vector)
def turned(builder: Any, vector: Any) -> Any:
    """Put the lanes into descending order."""
    return builder.shuffle_vector(vector, vector, ir.Constant(_PIXELS, list(reversed(range(LANES)))))


@written(_INTS)
def less_one(builder: Any, vector: Any, mask: Any) -> Any:
    """Subtract 1 from the numbers of the lanes where the mask is true."""
    return builder.add(vector, builder.sext(mask, _PIXELS))


@written(types.int64)
def bits(builder: Any, mask: Any) -> Any:
    """Gather one bit of each lane into a whole number."""
    return builder.zext(builder.bitcast(mask, _I16), _I64)


def _called(builder: Any, name: str, *values: Any) -> Any:
    kind = values[0].type
    function = ir.FunctionType(kind, [value.type for value in values])
    suffix = f"v{LANES}{ {_SINGLES.code: 'f32', _DOUBLES.code: 'f64'}.get(kind, 'i64') }"
    return builder.call(get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), values)


@written(lambda x, y, z: x)
def fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Compute ``x y + z``, rounded once."""
    return _called(builder, "fma", x, y, z)


@written(_SINGLES)
def root(builder: Any, x: Any) -> Any:
    """Take the square root."""
    return _called(builder, "sqrt", x)


@written(_WORDS)
def leading_zeros(builder: Any, vector: Any) -> Any:
    """Count the leading zero bits of each word; undefined for 0."""
    return _called(builder, "ctlz", vector, _I1(1))


def load_at(builder: Any, array: Any, at: Any) -> Any:
    """Write the code of `load`."""
    element = array.type.pointee
    kind = ir.VectorType(element, LANES)
    place = builder.bitcast(builder.gep(array, [at]), kind.as_pointer())
    return builder.load(place, align=4 if element in (ir.FloatType(), _I32) else 8, typ=kind)


def store_at(builder: Any, array: Any, at: Any, vector: Any) -> None:
    """Write the code of `store`."""
    element = array.type.pointee
    kind = ir.VectorType(element, LANES)
    if element == _I16:
        vector = builder.fptosi(vector, kind)
    place = builder.bitcast(builder.gep(array, [at]), kind.as_pointer())
    builder.store(vector, place, align={_I16: 2, _I32: 4, ir.FloatType(): 4}.get(element, 8))


#: Load the elements of an array from ``at`` on.
load = written(lambda array, at: _VECTORS[array.dtype], at=types.int64)(load_at)
#: Store elements into an array from ``at`` on; as whole numbers into int16.
store = written(types.void, at=types.int64)(store_at)


@written(_MASK, at=types.int64)
def truths(builder: Any, array: Any, at: Any) -> Any:
    """Load truth values from ``at`` on."""
    kind = ir.VectorType(_I8, LANES)
    found = builder.load(builder.bitcast(builder.gep(array, [at]), kind.as_pointer()), align=1, typ=kind)
    return builder.icmp_unsigned("!=", found, ir.Constant(kind, [0] * LANES))


@written(types.int64, word=types.int64)
def ones(builder: Any, word: Any) -> Any:
    """Count the bits that are set."""
    return builder.ctpop(word)


@written(types.int64, word=types.int64)
def lowest(builder: Any, word: Any) -> Any:
    """Find the lowest bit that is set: its number; 64 without any."""
    return builder.cttz(word, _I1(0))


@written(types.void, place=types.int64, at=types.int64)
def copy_one(builder: Any, array: Any, place: Any, out: Any, at: Any) -> None:
    """Copy one element of an array to another one; neither place may be negative."""
    builder.store(builder.load(builder.gep(array, [place])), builder.gep(out, [at]))


def _word(builder: Any, data: Any, byte: Any) -> Any:
    place = builder.bitcast(builder.gep(data, [byte]), _I64.as_pointer())
    return builder.load(place, align=1, typ=_I64)


@written(types.uint64, byte=types.int64)
def word_at(builder: Any, data: Any, byte: Any) -> Any:
    """Read eight bytes from ``byte`` on, the first one highest; they need not be aligned."""
    return builder.bswap(_word(builder, data, byte))


@written(_WORDS)
def words_at(builder: Any, data: Any, at: Any) -> Any:
    """Read at least 57 bits from bit ``at`` of the data on, highest first, in every lane."""
    byte, vector = builder.lshr(at, ir.Constant(_WORDS.code, [3] * LANES)), ir.Constant(_WORDS.code, ir.Undefined)
    for k in range(LANES):
        word = _word(builder, data, builder.extract_element(byte, _I32(k)))
        vector = builder.insert_element(vector, word, _I32(k))
    return builder.shl(_called(builder, "bswap", vector), builder.and_(at, ir.Constant(_WORDS.code, [7] * LANES)))


@written(types.void, byte=types.int64)
def prefetch(builder: Any, data: Any, byte: Any) -> None:
    """Prefetch the cache line of a byte, which need not exist."""
    at = builder.gep(data, [byte])
    kind = ir.FunctionType(ir.VoidType(), [at.type, _I32, _I32, _I32])
    builder.call(get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [at, _I32(0), _I32(3), _I32(1)])


def _in_range(builder: Any, sums: Any, mask: Any, zero: Any) -> Any:
    """Wrap sums into the encoder's type, and shift them."""
    low = builder.and_(builder.trunc(sums, _PIXELS), _splat(builder, builder.trunc(mask, _I32)))
    return builder.add(low, _splat(builder, builder.trunc(zero, _I32)))


@written(types.void, mask=types.int64, zero=types.int64, x=types.int64)
def scatter(builder: Any, sums: Any, mask: Any, zero: Any, out: Any, places: Any, x: Any) -> None:
    """Store one pixel of every lane, ``x`` behind the lane's place."""
    pixels, beginning = _in_range(builder, sums, mask, zero), builder.gep(out, [x])
    for k in range(LANES):
        at = builder.gep(beginning, [builder.load(builder.gep(places, [_I64(k)]))])
        builder.store(builder.extract_element(pixels, _I32(k)), at)


@written(types.void, mask=types.int64, zero=types.int64, x=types.int64)
def scatter_eight(builder: Any, sums: Any, mask: Any, zero: Any, out: Any, places: Any, x: Any) -> None:
    """Store eight pixels of every lane, beginning ``x`` behind the lane's place."""
    rows = [_in_range(builder, builder.extract_value(sums, k), mask, zero) for k in range(8)]
    low, high = ([half + k // 2 + k % 2 * LANES for k in range(LANES)] for half in (0, 8))
    for _ in range(3):  # three rounds that interleave the first four with the last four transpose
        pairs = [(rows[k], rows[k + 4], ir.Constant(_PIXELS, order)) for k in range(4) for order in (low, high)]
        rows = [builder.shuffle_vector(*pair) for pair in pairs]
    beginning = builder.gep(out, [x])
    for k in range(LANES):
        half = ir.Constant(_EIGHT, [k % 2 * 8 + n for n in range(8)])
        at = builder.gep(beginning, [builder.load(builder.gep(places, [_I64(k)]))])
        pixels = builder.shuffle_vector(rows[k // 2], rows[k // 2], half)
        builder.store(pixels, builder.bitcast(at, _EIGHT.as_pointer()), align=4)
