"""Rotary parameters of a checkpoint: base, rotated width and scaling, from the keys of either vocabulary."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from zonda.errors import Unsupported
from zonda.models.fields import Fields
from zonda.nn.rope import (
    DynamicScaling,
    FactorScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    Scaling,
    YarnScaling,
)

POSITIONS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Rotation:
    """One rotary embedding: `rotated` numbers of a head, base `theta`, `scaling`, and the positions that it reaches."""

    theta: float
    rotated: int
    scaling: Scaling | None
    reach: int


def rotation(fields: Fields, *, kind: str, theta: float, head_dim: int, context: int) -> Rotation:
    """The rotary embedding that `fields` describe; `kind` names its scaling."""
    if kind not in SCALINGS:
        raise Unsupported(f"rotary scaling '{kind}' is not supported", hint=f"supported: {', '.join(sorted(SCALINGS))}")
    rotated = _rotated(fields, head_dim)
    scaling = SCALINGS[kind](fields, context, rotated // 2)
    reach = context
    if isinstance(scaling, YarnScaling):
        reach = max(context, min(int(scaling.factor * scaling.original), POSITIONS))
    return Rotation(theta, rotated, scaling, reach)


def _rotated(fields: Fields, head_dim: int) -> int:
    width = fields.integer("rotary_dim", 0, low=0, high=head_dim)
    if not width:
        width = int(head_dim * fields.number("fraction", 1.0, high=1.0))
    if width < 2 or width % 2:
        raise fields.error("fraction", width, f"an even number of rotated dimensions, up to {head_dim}")
    return width


def _original(fields: Fields, context: int) -> int:
    return fields.integer("original", context, high=POSITIONS)


def _factor(fields: Fields, default: float | None = None) -> float:
    return fields.number("factor", default, low=1e-3, high=1e6)


def _linear(fields: Fields, context: int, pairs: int) -> Scaling:
    return LinearScaling(_factor(fields))


def _dynamic(fields: Fields, context: int, pairs: int) -> Scaling:
    return DynamicScaling(fields.number("factor", low=1.0, high=1e6), context)


def _factors(fields: Fields, context: int, pairs: int) -> Scaling:
    return FactorScaling(fields.positives("factors", pairs))


def _llama3(fields: Fields, context: int, pairs: int) -> Scaling:
    low, high = fields.positive("low"), fields.positive("high")
    if high <= low:
        raise fields.error("high", high, f"more than {fields.key('low')}, which is {low:g}")
    return Llama3Scaling(_factor(fields), low, high, _original(fields, context))


def _yarn(fields: Fields, context: int, pairs: int) -> Scaling:
    original = _original(fields, context)
    factor = _factor(fields, context / original)
    attention = fields.number("attention_scale", 1.0) * _yarn_attention(fields, factor)
    return YarnScaling(factor, original, fields.number("attention", attention), fast=fields.positive("fast", 32.0),
                       slow=fields.positive("slow", 1.0), truncate=fields.flag("truncate", True))


def _yarn_attention(fields: Fields, factor: float) -> float:
    growth = 0.1 * math.log(max(factor, 1.0))
    mscale, mscale_all = fields.number("mscale", 0.0), fields.number("mscale_all", 0.0)
    if mscale and mscale_all:
        return (growth * mscale + 1) / (growth * mscale_all + 1)
    return growth + 1


def _longrope(fields: Fields, context: int, pairs: int) -> Scaling:
    original = _original(fields, context)
    factor = _factor(fields, context / original)
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    attention = fields.number("attention", fields.number("attention_scale", attention))
    return LongScaling(fields.positives("long", pairs), fields.positives("short", pairs), original, attention)


SCALINGS: dict[str, Callable[[Fields, int, int], Scaling | None]] = {
    "default": lambda fields, context, pairs: None, "linear": _linear, "dynamic": _dynamic, "factors": _factors,
    "llama3": _llama3, "yarn": _yarn, "longrope": _longrope,
}
