"""Words for kernels that Numba lacks: raw memory, atomics, calls through addresses.

Kernels take addresses as int64, so that a compiled kernel is plain object code without a trace of Python.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from zonda.kernels.cpu.library import Target, host
from zonda.kernels.cpu.vector import F16, F32, I8, I32, I64, Emit

TARGET: ContextVar[Target] = ContextVar("target")
"""The processor that inlined IR writers write for."""
_NUMBA = {I8: types.uint8, I32: types.int32, I64: types.int64, F32: types.float32}


def _load(kind: ir.Type) -> Callable[..., Any]:
    @intrinsic
    def load(typingctx: Any, base: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = builder.gep(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
            return builder.load(pointer)

        return _NUMBA[kind](types.int64, types.int64), codegen

    return load


def _store(kind: ir.Type) -> Callable[..., Any]:
    @intrinsic
    def store(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = builder.gep(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
            builder.store(args[2], pointer)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, _NUMBA[kind]), codegen

    return store


load_u8, load_i32, load_i64, load_f32 = _load(I8), _load(I32), _load(I64), _load(F32)
store_u8, store_i32, store_i64, store_f32 = _store(I8), _store(I32), _store(I64), _store(F32)


@intrinsic
def load_f16(typingctx: Any, base: Any, index: Any) -> Any:
    """The float16 at base[index], as float32."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.gep(builder.inttoptr(args[0], F16.as_pointer()), [args[1]])
        return Emit(builder, TARGET.get(host())).from_half(builder.load(pointer))

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def store_f16(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
    """base[index] = value, a float32 rounded to float16."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.gep(builder.inttoptr(args[0], F16.as_pointer()), [args[1]])
        builder.store(Emit(builder, TARGET.get(host())).to_half(args[2]), pointer)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), codegen


@intrinsic
def bits_f32(typingctx: Any, value: Any) -> Any:
    """The float32 with these 32 bits."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], F32)

    return types.float32(types.int32), codegen


@intrinsic
def f32_bits(typingctx: Any, value: Any) -> Any:
    """The 32 bits of a float32."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], I32)

    return types.int32(types.float32), codegen


@intrinsic
def nearest(typingctx: Any, value: Any) -> Any:
    """The nearest whole number, as float32."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F32, [F32]), "llvm.rint.f32")
        return builder.call(function, args)

    return types.float32(types.float32), codegen


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, I64.as_pointer())


@intrinsic
def atomic_load(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_word(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _word(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add and return the value before."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_swap_if(typingctx: Any, address: Any, expected: Any, value: Any) -> Any:
    """Store `value` where `expected` stands; whether it stood there."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair = builder.cmpxchg(_word(builder, args[0]), args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tell the core that this is a spin loop."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        triple = builder.module.triple
        if triple.startswith("x86"):
            name, words = "llvm.x86.sse2.pause", []
        elif triple.startswith(("aarch64", "arm64")):
            name, words = "llvm.aarch64.hint", [ir.Constant(I32, 1)]
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [word.type for word in words])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), words)
        return context.get_dummy_value()

    return types.void(), codegen


def _call(builder: Any, function: Any, words: Sequence[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(words))
    builder.call(builder.inttoptr(function, kind.as_pointer()), words)


@intrinsic
def call4(typingctx: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Call the compiled kernel at this address with four words."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _call(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


@intrinsic
def call_yield(typingctx: Any, function: Any) -> Any:
    """Call an `int f(void)` of the operating system that gives up the processor."""
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.call(builder.inttoptr(args[0], ir.FunctionType(I32, []).as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _asking(write: int) -> Any:
    @intrinsic
    def ask(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], I8.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [pointer, ir.Constant(I32, write), ir.Constant(I32, 3), ir.Constant(I32, 1)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return ask


prefetch, claim = _asking(0), _asking(1)
"""Ask for the cache line at an address, to read it or to write to it."""


def inline(writer: Callable[..., None], words: int) -> Any:
    """An IR writer as a Numba function of int64 words, expanded where it is called."""
    @intrinsic
    def expand(typingctx: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            writer(builder, TARGET.get(host()), *(builder.extract_value(args[0], i) for i in range(words)))
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, words)), codegen

    return expand


def several(count: int) -> Any:
    """The function load(base, index): `count` neighbouring int64 as a tuple."""
    @intrinsic
    def load(typingctx: Any, base: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]])
            words = [builder.load(builder.gep(pointer, [ir.Constant(I64, i)])) for i in range(count)]
            return context.make_tuple(builder, sig.return_type, words)

        return types.UniTuple(types.int64, count)(types.int64, types.int64), codegen

    return load


load3, load4, load5, load6, load7, load8 = map(several, (3, 4, 5, 6, 7, 8))
