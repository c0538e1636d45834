"""Checkpoints of eight-bit floats: the tensors of scales beside their weights, and what `quantization_config` says."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from zonda.errors import InvalidModel, Unsupported
from zonda.weights.formats.float8 import BLOCK, Float8

CONFIG = "quantization_config"
SCALES = ("_scale_inv", "_scale")
"""What a tensor of scales has after its weight's name."""
INPUT_SCALES = ("input_scale", "activation_scale")
"""What stands in place of `weight` in the name of a scale of inputs."""
OF_CACHE = (".k_scale", ".v_scale", ".q_scale", ".prob_output_scale", ".kv_cache_scaling_factor")
"""Endings of scales for a cache of eight bits, which Zonda does not keep."""
FORMATS = {"compressed-tensors": ("format", ("float-quantized", "naive-quantized")),
           "modelopt": ("quant_algo", ("FP8",))}
"""Method -> the key that says more, and the values of it that are eight-bit floats."""
METHODS = ("fp8", "fbgemm_fp8", *FORMATS)

Fetch = Callable[[str], np.ndarray]
"""The float32 values of a tensor."""


def check(metadata: Mapping[str, Any]) -> None:
    """Raise `Unsupported` where a configuration speaks of another quantization than by eight-bit floats."""
    config = metadata.get(CONFIG)
    if config is None:
        return
    if not isinstance(config, Mapping):
        raise InvalidModel(f"{CONFIG} is {type(config).__name__}, expected an object")
    method = str(config.get("quant_method"))
    key, known = FORMATS.get(method, ("fmt", ("e4m3",)))
    if method not in METHODS or config.get(key, known[0]) not in known:
        said = f" of {key} {config.get(key)!r:.60}" if method in METHODS else ""
        raise Unsupported(f"{CONFIG} says quant_method '{method:.60}'{said}, which is not supported",
                          hint=f"supported are {', '.join(METHODS)}, all with eight-bit floats")
    block = config.get("weight_block_size")
    if block is not None and block != [BLOCK, BLOCK]:
        raise Unsupported(f"weight_block_size in {CONFIG} is {block!r:.60}, expected [{BLOCK}, {BLOCK}]")


def companions(tensors: Mapping[str, str]) -> set[str]:
    """Of tensors and their types, those that only scale others."""
    found = {name for name in tensors if name.endswith(OF_CACHE)}
    for name, dtype in tensors.items():
        if dtype == "F8_E4M3":
            found.update(each for each in (*_scale_names(name), *_input_names(name)) if each in tensors)
    return found


def read(name: str, codes: np.ndarray, tensors: Iterable[str], fetch: Fetch, *, declared: bool) -> Float8:
    """The weight of that tensor's codes with the scales that lie beside it.

    Without scales it counts as it stands, unless the configuration has `declared` that it is scaled.
    """
    have = set(tensors)
    if codes.ndim < 2:
        raise Unsupported(f"tensor {name!r:.100} of type F8_E4M3 has shape {codes.shape}, expected a matrix")
    scale = next((each for each in _scale_names(name) if each in have), None)
    if scale is None and declared:
        raise InvalidModel(f"tensor {name!r:.100} is of type F8_E4M3, but there is no {_scale_names(name)[1]!r:.100}",
                           hint="the download is incomplete or damaged: download the model again")
    scales = np.ones((), np.float32) if scale is None else fetch(scale)
    return _weight(scale or name, codes, scales, _input_scale(name, have, fetch))


def _weight(name: str, codes: np.ndarray, scales: np.ndarray, input_scale: float | None) -> Float8:
    *stack, rows, cols = codes.shape
    blocks = (*stack, -(-rows // BLOCK), -(-cols // BLOCK))
    if scales.size == 1:
        return Float8(codes, np.full((*stack, rows, 1), scales.ravel()[0], np.float32), 1, True, input_scale)
    if scales.size == codes.size // max(1, rows * cols) and stack:
        return Float8(codes, np.repeat(scales.reshape(*stack, 1, 1), rows, axis=-2), 1, True, input_scale)
    if scales.shape in ((*stack, rows), (*stack, rows, 1)):
        return Float8(codes, np.ascontiguousarray(scales.reshape(*stack, rows, 1)), 1, True, input_scale)
    if scales.shape == blocks:
        return Float8(codes, np.ascontiguousarray(scales), BLOCK, False, input_scale)
    raise InvalidModel(f"{name!r:.100} has shape {scales.shape}, expected one scale, {(*stack, rows, 1)} or {blocks} "
                       f"for a weight of shape {codes.shape}")


def _input_scale(name: str, have: set[str], fetch: Fetch) -> float | None:
    found = next((each for each in _input_names(name) if each in have), None)
    if found is None:
        return None
    scale = fetch(found)
    if not scale.size or not np.isfinite(scale).all() or scale.min() <= 0:
        raise InvalidModel(f"{found!r:.100} holds {scale.ravel()[:1]}, expected positive numbers")
    return float(scale.max())


def _scale_names(name: str) -> list[str]:
    return [name + ending for ending in SCALES]


def _input_names(name: str) -> list[str]:
    return [name.removesuffix("weight") + each for each in INPUT_SCALES] if name.endswith(".weight") else []
