"""Arithmetic on whole vector registers inside of numba functions.

numba leaves it to the compiler to find vectors in loops; what it does not find
costs a factor of four to forty.  Here an intrinsic writes the vector code itself,
with numpy's operators on `Vector`.  LLVM splits vectors that are wider than the
processor's registers, so the same code runs everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from numba.core import cgutils
from numba.core.cgutils import ir

#: Pixels a vector.
LANES: Final = 16
INDEX: Final = ir.IntType(64)
_SINGLE: Final = ir.VectorType(ir.FloatType(), LANES)
_DOUBLE: Final = ir.VectorType(ir.DoubleType(), LANES)


@dataclass(frozen=True)
class Mask:
    """Truth values of `LANES` pixels."""

    code: Code
    value: Any

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.code, self.code.builder.and_(self.value, other.value))

    def every(self) -> Any:
        """Whether all lanes are true, as a boolean of numba's."""
        bits = self.code.builder.bitcast(self.value, ir.IntType(LANES))
        return self.code.builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(LANES), -1))


@dataclass(frozen=True)
class Vector:
    """Numbers of `LANES` pixels; comparisons with NaN are false."""

    code: Code
    value: Any

    def _with(self, operation: str, other: Vector) -> Vector:
        return Vector(self.code, getattr(self.code.builder, operation)(self.value, other.value))

    def _compared(self, how: str, other: Vector) -> Mask:
        return Mask(self.code, self.code.builder.fcmp_ordered(how, self.value, other.value))

    def __add__(self, other: Vector) -> Vector:
        return self._with("fadd", other)

    def __sub__(self, other: Vector) -> Vector:
        return self._with("fsub", other)

    def __mul__(self, other: Vector) -> Vector:
        return self._with("fmul", other)

    def __truediv__(self, other: Vector) -> Vector:
        return self._with("fdiv", other)

    def __lt__(self, other: Vector) -> Mask:
        return self._compared("<", other)

    def __le__(self, other: Vector) -> Mask:
        return self._compared("<=", other)

    def double(self) -> Vector:
        """In float64."""
        return Vector(self.code, self.code.builder.fpext(self.value, _DOUBLE))

    def single(self) -> Vector:
        """In float32."""
        return Vector(self.code, self.code.builder.fptrunc(self.value, _SINGLE))


class Variable:
    """A vector that changes in a loop."""

    def __init__(self, start: Vector) -> None:
        self._code = start.code
        self._place = cgutils.alloca_once_value(start.code.builder, start.value)

    def get(self) -> Vector:
        """What it is now."""
        return Vector(self._code, self._code.builder.load(self._place))

    def set(self, value: Vector) -> None:
        """Change it."""
        self._code.builder.store(value.value, self._place)


class Code:
    """Writes the vector code of one intrinsic.

    Parameters
    ----------
    context, builder, signature, arguments
        What numba gives to the intrinsic's generator.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder, self._context = builder, context
        self._arrays = [
            context.make_array(kind)(context, builder, value).data if hasattr(kind, "ndim") else None
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        self._arguments = arguments

    def number(self, value: float, double: bool = False) -> Vector:
        """A constant in all lanes."""
        return Vector(self, ir.Constant(_DOUBLE if double else _SINGLE, [value] * LANES))

    def spread(self, argument: int, k: int | None = None) -> Vector:
        """A scalar argument (float32 or float64), or item ``k`` of a tuple of them, in all lanes."""
        value = self.index(argument, k)
        nothing = ir.Constant(_DOUBLE if value.type == ir.DoubleType() else _SINGLE, ir.Undefined)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        one = self.builder.insert_element(nothing, value, INDEX(0))
        return Vector(self, self.builder.shuffle_vector(one, nothing, mask))

    def index(self, argument: int, k: int | None = None) -> Any:
        """An integer argument, or item ``k`` of one that is a tuple."""
        value = self._arguments[argument]
        return value if k is None else self.builder.extract_value(value, k)

    def place(self, start: Any, step: Any, k: Any) -> Any:
        """``start + k step``; ``k`` may be a plain integer."""
        count = INDEX(k) if isinstance(k, int) else k
        return self.builder.add(start, self.builder.mul(step, count))

    def _pointer(self, array: int, at: Any) -> Any:
        index = INDEX(at) if isinstance(at, int) else at
        return self.builder.bitcast(self.builder.gep(self._arrays[array], [index]), _SINGLE.as_pointer())

    def load(self, array: int, at: Any) -> Vector:
        """`LANES` elements of a float32 array argument from element ``at`` on; neither checked nor aligned."""
        return Vector(self, self.builder.load(self._pointer(array, at), align=4))

    def add_to(self, array: int, row: int, value: Vector) -> None:
        """Add float64 numbers to the elements of a float64 array argument from ``row * LANES`` on."""
        place = self.builder.gep(self._arrays[array], [INDEX(row * LANES)])
        place = self.builder.bitcast(place, _DOUBLE.as_pointer())
        self.builder.store(self.builder.fadd(self.builder.load(place, align=8), value.value), place, align=8)

    def store(self, value: Vector, array: int, at: Any) -> None:
        """The other way round."""
        self.builder.store(value.value, self._pointer(array, at), align=4)

    def store_count(self, value: Vector, array: int, at: Any) -> None:
        """Store whole numbers into an int16 array argument."""
        kind = ir.VectorType(ir.IntType(16), LANES)
        place = self.builder.bitcast(self.builder.gep(self._arrays[array], [at]), kind.as_pointer())
        self.builder.store(self.builder.fptosi(value.value, kind), place, align=2)

    def where(self, mask: Mask, yes: Vector, no: Vector) -> Vector:
        """One or the other, lane by lane."""
        return Vector(self, self.builder.select(mask.value, yes.value, no.value))

    def ordered(self, x: Vector, y: Vector) -> tuple[Vector, Vector]:
        """The smaller one and the larger one, lane by lane."""
        less = x < y
        return self.where(less, x, y), self.where(less, y, x)

    def _call(self, name: str, *vectors: Vector) -> Vector:
        kind = ir.FunctionType(_SINGLE, [_SINGLE] * len(vectors))
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{LANES}f32")
        return Vector(self, self.builder.call(function, [v.value for v in vectors]))

    def fused(self, x: Vector, y: Vector, z: Vector) -> Vector:
        """``x y + z``, rounded once."""
        return self._call("fma", x, y, z)

    def root(self, x: Vector) -> Vector:
        """Square root."""
        return self._call("sqrt", x)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        """Count from ``start`` to ``stop``."""
        with cgutils.for_range_slice(self.builder, start, stop, INDEX(step), intp=INDEX) as (k, _):
            yield k

    @contextmanager
    def unless(self, condition: Any) -> Iterator[None]:
        """Do something where a boolean of numba's is false."""
        with self.builder.if_then(self.builder.not_(condition), likely=False):
            yield

    def before(self, number: Any) -> Any:
        """An integer less one, but not below 0."""
        less = self.builder.sub(number, INDEX(1))
        return self.builder.select(self.builder.icmp_signed("<", less, INDEX(0)), INDEX(0), less)

    def nothing(self) -> Any:
        """What an intrinsic without a result returns."""
        return self._context.get_dummy_value()
