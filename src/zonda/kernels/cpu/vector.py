"""A vector language over LLVM IR, for kernels whose speed lies in the choice of instructions and registers."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu.library import Target

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()


class _BFloat(ir.Type):
    """The upper half of a float32, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BF16 = _BFloat()


@dataclass(frozen=True, slots=True)
class Registers:
    """How many 32-bit lanes a vector register has, and how many registers there are."""

    lanes: int
    count: int

    @classmethod
    def of(cls, target: Target) -> Registers:
        if target.isa.startswith("avx512"):
            return cls(16, 32)
        return cls(8 if target.isa.startswith("avx") else 4, 32 if target.isa == "neon" else 16)


class Emit:
    """Writes straight-line vector code and counted loops into a builder."""

    def __init__(self, builder: ir.IRBuilder, target: Target) -> None:
        self.b = builder
        self.target = target
        self.registers = Registers.of(target)

    def const(self, kind: ir.Type, value: Any) -> ir.Constant:
        if isinstance(kind, ir.VectorType):
            return ir.Constant(kind, [value] * kind.count)
        return ir.Constant(kind, value)

    def word(self, value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def at(self, address: Any, offset: Any) -> Any:
        """address + offset in bytes."""
        return self.b.add(address, self.word(offset) if isinstance(offset, int) else offset)

    def times(self, value: Any, factor: int) -> Any:
        return self.b.mul(value, self.word(factor))

    def load(self, kind: ir.Type, address: Any, offset: Any = 0) -> Any:
        pointer = self.b.inttoptr(self.at(address, offset), kind.as_pointer())
        return self.b.load(pointer, align=_align(kind))

    def store(self, value: Any, address: Any, offset: Any = 0) -> None:
        pointer = self.b.inttoptr(self.at(address, offset), value.type.as_pointer())
        self.b.store(value, pointer, align=_align(value.type))

    def prefetch(self, address: Any, offset: int) -> None:
        """Ask for the cache line at address + offset; it need not be memory of ours."""
        pointer = self.b.inttoptr(self.at(address, offset), I8.as_pointer())
        module = self.b.module
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        function = module.globals.get("llvm.prefetch.p0") or ir.Function(module, kind, "llvm.prefetch.p0")
        self.b.call(function, [pointer, *(ir.Constant(I32, value) for value in (0, 3, 1))])

    def splat(self, scalar: Any, lanes: int) -> Any:
        vector = ir.VectorType(scalar.type, lanes)
        one = self.b.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, rounded once."""
        return self.intrinsic("llvm.fma." + _suffix(a.type), a.type, [a, b, c])

    def plus(self, a: Any, b: Any) -> Any:
        """a + b, in the order that is written; Numba lets sums without a flag of their own be taken in any order."""
        return self.b.fadd(a, b, flags=("nsz",))

    def minus(self, a: Any, b: Any) -> Any:
        """a - b, as it is written."""
        return self.b.fsub(a, b, flags=("nsz",))

    def product(self, a: Any, b: Any) -> Any:
        """a · b, as it is written."""
        return self.b.fmul(a, b, flags=("nsz",))

    def from_half(self, value: Any) -> Any:
        """A float16 number or vector as float32, exactly."""
        wide = _like(value.type, F32)
        if self.target.halves:
            return self.b.fpext(value, wide)
        b, words = self.b, _like(value.type, I32)
        bits = b.zext(b.bitcast(value, _like(value.type, I16)), words)
        size = b.shl(b.and_(bits, self.const(words, 0x7FFF)), self.const(words, 13))
        scaled = b.bitcast(b.fmul(b.bitcast(size, wide), self.const(wide, 2.0**112)), words)
        special = b.icmp_unsigned(">=", size, self.const(words, 0x7C00 << 13))
        scaled = b.select(special, b.or_(scaled, self.const(words, 0x7F800000)), scaled)
        sign = b.shl(b.and_(bits, self.const(words, 0x8000)), self.const(words, 16))
        return b.bitcast(b.or_(scaled, sign), wide)

    def to_half(self, value: Any) -> Any:
        """A float32 number or vector rounded to float16, to the nearest, ties to even."""
        if self.target.halves:
            return self.b.fptrunc(value, _like(value.type, F16))
        b, words, narrow = self.b, _like(value.type, I32), _like(value.type, I16)

        def word(number: int) -> Any:
            return self.const(words, number)

        bits = b.bitcast(value, words)
        size = b.and_(bits, word(0x7FFFFFFF))
        odd = b.and_(b.lshr(size, word(13)), word(1))
        normal = b.lshr(b.add(b.sub(size, word(0x38000000)), b.add(odd, word(0xFFF))), word(13))
        half = self.const(value.type, 0.5)  # whose last bit is worth as much as the least float16
        small = b.sub(b.bitcast(b.fadd(b.bitcast(size, value.type), half), words), word(0x3F000000))
        huge = b.select(b.icmp_unsigned(">", size, word(0x7F800000)), word(0x7E00), word(0x7C00))
        result = b.select(b.icmp_unsigned("<", size, word(0x38800000)), small, normal)
        result = b.select(b.icmp_unsigned(">=", size, word(0x47800000)), huge, result)
        sign = b.and_(b.lshr(bits, word(16)), word(0x8000))
        return b.bitcast(b.trunc(b.or_(result, sign), narrow), _like(value.type, F16))

    def powers(self, factors: Sequence[float], x: Any) -> Any:
        """The polynomial of a vector with these factors, that of the highest power first."""
        total = self.const(x.type, factors[0])
        for factor in factors[1:]:
            total = self.fma(total, x, self.const(x.type, factor))
        return total

    def intrinsic(self, name: str, result: ir.Type, args: list[Any]) -> Any:
        module = self.b.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.b.call(function, args)

    def variable(self, value: Any) -> Variable:
        """A mutable local, which LLVM keeps in a register."""
        with self.b.goto_entry_block():
            slot = self.b.alloca(value.type)
        variable = Variable(self, slot)
        variable.set(value)
        return variable

    @contextmanager
    def loop(self, count: Any) -> Iterator[Any]:
        """Repeat the body `count` times (int64, may be zero), yielding the index."""
        head, body, done = (self.b.append_basic_block(name) for name in ("head", "body", "done"))
        before = self.b.block
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64)
        index.add_incoming(self.word(0), before)
        self.b.cbranch(self.b.icmp_signed("<", index, count), body, done)
        self.b.position_at_end(body)
        yield index
        following = self.b.add(index, self.word(1))
        index.add_incoming(following, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(done)


class Variable:
    """A local that loops may change."""

    def __init__(self, emit: Emit, slot: Any) -> None:
        self._b = emit.b
        self._slot = slot

    def get(self) -> Any:
        return self._b.load(self._slot)

    def set(self, value: Any) -> None:
        self._b.store(value, self._slot)


def _align(kind: ir.Type) -> int:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return {I8: 1, I16: 2, F16: 2, BF16: 2, I64: 8}.get(element, 4)


def _like(kind: ir.Type, element: ir.Type) -> ir.Type:
    """`element`, as a vector where `kind` is one."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _suffix(kind: ir.Type) -> str:
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return {F32: "f32", F16: "f16"}.get(kind) or f"i{kind.width}"


def largest(e: Emit, vectors: list[Any]) -> Any:
    """The largest number in some vectors, a scalar."""
    return fold(e, vectors, lambda a, b: e.b.select(e.b.fcmp_unordered(">", b, a), b, a))


def total(e: Emit, vectors: list[Any]) -> Any:
    """The sum of all numbers in some vectors, a scalar."""
    return fold(e, vectors, e.b.fadd)


def fold(e: Emit, vectors: list[Any], join: Callable[[Any, Any], Any]) -> Any:
    """One number out of some vectors; halves are joined, so the order is the same for all."""
    whole = reduce(join, vectors)
    lanes = whole.type.count
    while lanes > 1:
        lanes //= 2
        undefined = ir.Constant(whole.type, ir.Undefined)
        picks = [ir.Constant(ir.VectorType(I32, lanes), list(range(s, s + lanes))) for s in (0, lanes)]
        low, high = (e.b.shuffle_vector(whole, undefined, pick) for pick in picks)
        whole = join(low, high)
    return e.b.extract_element(whole, e.const(I32, 0))


def exp(e: Emit, x: Any) -> Any:
    """eˣ of a vector to about 1 unit in the last place, as `scalar.exp`; arguments beyond ±88 are clamped."""
    b, kind = e.b, x.type
    words = ir.VectorType(I32, kind.count)
    low, high = e.const(kind, -87.3), e.const(kind, 88.0)
    x = b.select(b.fcmp_ordered("<", x, low), low, x)
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    n = e.intrinsic(f"llvm.rint.{_suffix(kind)}", kind, [b.fmul(x, e.const(kind, 1.44269504))])
    r = e.fma(n, e.const(kind, 2.12194440e-4), e.fma(n, e.const(kind, -0.693359375), x))
    p = e.powers((1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                  5.0000001201e-1), r)
    p = e.plus(e.fma(e.product(p, r), r, r), e.const(kind, 1.0))
    power = b.shl(b.add(b.fptosi(n, words), e.const(words, 127)), e.const(words, 23))
    return e.product(p, b.bitcast(power, kind))


def near_inverse(e: Emit, x: Any) -> Any:
    """1 / x of 16 numbers to 14 bits, by AVX-512."""
    return e.intrinsic("llvm.x86.avx512.rcp14.ps.512", x.type, [x, x, ir.Constant(I16, -1)])
