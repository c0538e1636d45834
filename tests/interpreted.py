"""Where there is no GPU, Triton's interpreter runs the kernels; it must be chosen before triton is imported."""
from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

    from triton.runtime import interpreter

    # numpy no longer makes a number of an array of one, as bounds of loops are in the interpreter
    before = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        before(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.reshape(-1)[0])

    interpreter._patch_lang_tensor = patched
