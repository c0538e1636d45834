"""Processors that kernels are tested for. One that this machine is not is emulated: its kernels are written as they are
for it, and compiled for this machine, with plain arithmetic in place of the instructions that this machine lacks."""
from __future__ import annotations

import re
from typing import Any

from llvmlite import ir

from zonda.environment import cache_folder
from zonda.kernels.cpu.library import Kernel, Library, Target, host

PORTABLE = Target("x86-64", "+sse2,+sse,+cx8,+x87,+fxsr,+mmx")
AVX2 = Target("x86-64-v3", "+avx,+avx2,+bmi,+bmi2,+cx16,+cx8,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sahf,+sse,"
                           "+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+x87,+xsave")
EMULATED = {isa: Target("emulated", features) for isa, features in {
    "neon": "+dotprod,+f16c", "avxvnni": "+avx2,+avxvnni,+f16c", "avx512": "+avx512bw,+avx512vl,+f16c",
    "avx512vnni": "+avx512bw,+avx512vl,+avx512vnni,+f16c"}.items()}

I8, I16, I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
DOTS = {f"llvm.x86.avx512.vpdpbusd.{32 * n}": (n, I32, I8, 4) for n in (8, 16)} | {
    "llvm.x86.avx512.vpdpwssd.512": (16, I32, I16, 2),
    "llvm.x86.avx512.pmaddubs.w.512": (32, I16, I8, 2), "llvm.x86.avx512.pmaddw.d.512": (16, I32, I16, 2),
    "llvm.aarch64.neon.sdot.v4i32.v16i8": (4, I32, I8, 4)}
ROUNDED = "llvm.x86.avx512.pmul.hr.sw.512"
"""Sums of products: lanes and numbers of the result, the factors, and how many make a sum."""


class Emulation(Library):
    """Kernels that are written for `target`, compiled for this machine."""

    def _machine_for(self, target: Target) -> Any:
        return super()._machine_for(host())

    def _assembly(self, kernel: Kernel) -> str:
        text = super()._assembly(kernel)
        for name in (*DOTS, ROUNDED):
            text, found = re.subn(rf'^declare .* @"?{re.escape(name)}"?\(.*$', lambda _, n=name: _plain(n), text,
                                  flags=re.MULTILINE)
            text = re.sub(rf'@"?{re.escape(name)}"?\(', f'@"plain.{name}"(', text) if found else text
        return text


def _plain(name: str) -> str:
    """The definition of a function that does what the instruction does."""
    if name == ROUNDED:
        return _rounded_product()
    lanes, result, factor, count = DOTS[name]
    wide, narrow = ir.VectorType(result, lanes), ir.VectorType(factor, lanes * count)
    added = "vpdp" in name or "sdot" in name
    given = wide if "vpdp" in name else narrow
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(wide, [wide] * added + [given] * 2), f"plain.{name}")
    function.attributes.add("noinline")
    b = ir.IRBuilder(function.append_basic_block())
    words = ir.VectorType(I32, lanes * count)
    left, right = (b.bitcast(value, narrow) for value in function.args[-2:])
    signed = factor is I16 or "sdot" in name
    products = b.mul((b.sext if signed else b.zext)(left, words), b.sext(right, words))
    total = ir.Constant(ir.VectorType(I32, lanes), None)
    for k in range(count):
        pick = ir.Constant(ir.VectorType(I32, lanes), list(range(k, lanes * count, count)))
        total = b.add(total, b.shuffle_vector(products, products, pick))
    if added:
        total = b.add(total, function.args[0])
    if result is I16:
        low, high = (ir.Constant(total.type, [number] * lanes) for number in (-32768, 32767))
        total = b.select(b.icmp_signed("<", total, low), low, total)
        total = b.trunc(b.select(b.icmp_signed(">", total, high), high, total), wide)
    b.ret(total)
    return str(function)


def _rounded_product() -> str:
    """(a · b + 2¹⁴) / 2¹⁵ of 16-bit numbers."""
    shorts, words = ir.VectorType(I16, 32), ir.VectorType(I32, 32)
    function = ir.Function(ir.Module(), ir.FunctionType(shorts, [shorts] * 2), f"plain.{ROUNDED}")
    function.attributes.add("noinline")
    b = ir.IRBuilder(function.append_basic_block())
    product = b.mul(*(b.sext(value, words) for value in function.args))
    half, places = (ir.Constant(words, [number] * 32) for number in (1 << 14, 15))
    b.ret(b.trunc(b.ashr(b.add(product, half), places), shorts))
    return str(function)


def library(isa: str) -> Library:
    """Kernels for a kind of processor."""
    if isa in EMULATED:
        return Emulation(cache_folder(), EMULATED[isa])
    return Library(cache_folder(), {"portable": PORTABLE, "avx2": AVX2}[isa])
