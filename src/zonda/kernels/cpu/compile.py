"""From a kernel's recipe to LLVM assembly; needed only when the object code is not cached yet."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import compiler, registry
from numba.core.compiler import Flags
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu_options import FastMathOptions

from zonda.kernels.cpu import words
from zonda.kernels.cpu.library import Kernel, Target

I64 = ir.IntType(64)


def from_writer(kernel: Kernel, recipe: Callable[..., None], target: Target) -> str:
    """Run an IR writer: recipe(builder, target, *words) fills the exported function."""
    module = ir.Module(name=kernel.name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * kernel.words), kernel.name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    recipe(builder, target, *function.args)
    builder.ret_void()
    return str(module)


def from_numba(kernel: Kernel, recipe: Callable[..., None], target: Target) -> str:
    """Compile recipe(*int64) with Numba, and export it under the kernel's name without Numba's calling convention."""
    flags = Flags()
    flags.no_cpython_wrapper = True
    flags.no_compile = True
    flags.error_model = "numpy"
    flags.fastmath = FastMathOptions({"reassoc", "nsz", "contract", "arcp"})
    arguments = (types.int64,) * kernel.words
    numba = registry.cpu_target
    words.TARGET.set(target)
    with global_compiler_lock:
        result = compiler.compile_extra(numba.typing_context, numba.target_context, recipe, arguments, types.void,
                                        flags, {})
        library = result.library
        module = llvm.parse_assembly(str(library._final_module))
        for linked in library._linking_libraries:
            module.link_in(linked._get_module_for_linking(), preserve=True)
    module.link_in(llvm.parse_assembly(_export(kernel, result, numba.target_context)))
    return str(module)


def _export(kernel: Kernel, result: Any, context: Any) -> str:
    module = ir.Module(name=f"{kernel.name}.export")
    inner_type = context.call_conv.get_function_type(types.void, [types.int64] * kernel.words)
    inner = ir.Function(module, inner_type, result.fndesc.llvm_func_name)
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * kernel.words), kernel.name)
    builder = ir.IRBuilder(outer.append_basic_block("entry"))
    returned = builder.alloca(inner_type.args[0].pointee)
    excinfo = builder.alloca(inner_type.args[1].pointee)
    builder.call(inner, [returned, excinfo, *outer.args])
    builder.ret_void()
    return str(module)


def optimize(module: Any, machine: Any, name: str) -> None:
    """Everything but the exported kernel becomes private, then LLVM's -O3."""
    for function in module.functions:
        if not function.is_declaration and function.name != name:
            function.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
