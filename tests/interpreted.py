"""Where there is no GPU, Triton's interpreter runs the kernels; it must be chosen before triton is imported."""
from __future__ import annotations

import os

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

    from triton.runtime import interpreter

    # numpy no longer makes a number of an array of one, as bounds of loops are in the interpreter
    before, launch = interpreter._patch_lang_tensor, interpreter.GridExecutor.__call__

    def patched(tensor, *scope):
        before(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.reshape(-1)[0])

    def quiet(self, *values, **options):
        with np.errstate(all="ignore"):  # a GPU goes on too, with infinities and what is no number
            return launch(self, *values, **options)

    interpreter._patch_lang_tensor = patched
    interpreter.GridExecutor.__call__ = quiet
