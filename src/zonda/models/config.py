"""Hyper-parameters under one vocabulary, whichever kind of file states them."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from zonda.errors import InvalidModel, Unsupported
from zonda.kernels.ops import Activation, Heads
from zonda.models.fields import GGUF, HUGGING_FACE, Fields
from zonda.models.ropes import POSITIONS, Rotation, rotation
from zonda.nn.rope import DynamicScaling
from zonda.weights.source import Source

ACTIVATIONS = {"swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
               **{name: name for name in get_args(Activation)}}
ROPE_LISTS = ("factors", "long", "short")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Experts of `dim` hidden units, of which each token uses `top`; layers in `dense` have none."""

    experts: int
    top: int
    dim: int
    normalize: bool
    dense: frozenset[int]


@dataclass(frozen=True, slots=True)
class Config:
    """What an architecture's `build` may ask.

    `context` counts the positions that the model was made for, `max_len` those that a sequence may have now; `windows`
    those that each layer sees, 0 for all.
    """

    dim: int
    layers: int
    heads: Heads
    ffn_dim: int
    vocab: int
    eps: float
    context: int
    max_len: int
    tied: bool
    bias: bool
    activation: Activation
    windows: tuple[int, ...]
    rotations: tuple[Rotation, Rotation]
    scale: float | None
    softcap: float
    logit_softcap: float
    mixture: Mixture | None
    eos: frozenset[int]

    def rope(self, *, local: bool = False) -> dict[str, Any]:
        """Parameters of `Rope`; `local` those of layers with a window, where a model tells them apart."""
        chosen = self.rotations[local]
        return {"theta": chosen.theta, "rotated": chosen.rotated, "scaling": chosen.scaling, "max_len": self.max_len}

    def sparse(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return self.mixture is not None and layer not in self.mixture.dense

    @classmethod
    def of(cls, source: Source, *, max_len: int | None = None, defaults: Mapping[str, Any] | None = None) -> Config:
        """Read and check a checkpoint's hyper-parameters.

        `max_len` is the most positions a sequence will have, by default the model's context; `defaults` are an
        architecture's values for what its checkpoints may leave out. Raises `InvalidModel` naming the key.
        """
        if "general.architecture" in source.metadata:
            return _from_gguf(source, max_len, defaults or {})
        return _from_hugging_face(source, max_len, defaults or {})


def _from_hugging_face(source: Source, max_len: int | None, defaults: Mapping[str, Any]) -> Config:
    raw = {**source.metadata, **_table(source.metadata, "text_config")}
    fields = Fields(raw, HUGGING_FACE, fallbacks=defaults)
    ropes = _table(raw, "rope_parameters") or _table(raw, "rope_scaling")
    nested = any(isinstance(value, Mapping) for value in ropes.values())
    full, local = (_table(ropes, "full_attention"), _table(ropes, "sliding_attention")) if nested else (ropes, {})
    heads, context = _heads(fields), _context(fields)

    def rotary(table: Mapping[str, Any], theta: str) -> Rotation:
        scaled = Fields({**raw, **{k: v for k, v in table.items() if v is not None}}, HUGGING_FACE, fallbacks=defaults)
        base = scaled.number("theta" if "rope_theta" in table else theta, 10_000.0, low=1.01)
        return rotation(scaled, kind=_kind(table), theta=base, head_dim=heads.dim, context=context)

    return _config(fields, heads=heads, context=context, max_len=max_len, eos=frozenset(fields.integers("eos")),
                   vocab=fields.integer("vocab", high=1 << 24), bias=fields.flag("attention_bias"),
                   tied=fields.flag("tied", "head" not in source.names()),
                   rotations=(rotary(full, "theta"), rotary(local, "theta_local")))


def _from_gguf(source: Source, max_len: int | None, defaults: Mapping[str, Any]) -> Config:
    names = source.names()
    lists = {name: source.read(f"rope.{name}").dense().ravel() for name in ROPE_LISTS if f"rope.{name}" in names}
    prefix = f"{source.metadata['general.architecture']}."
    fallbacks = {"normalize": True, **defaults, "window": 0, **lists}
    fields = Fields(source.metadata, GGUF, prefix=prefix, fallbacks=fallbacks)
    heads, context = _heads(fields), _context(fields)
    if fields.integer("value_dim", heads.dim) != heads.dim:
        raise Unsupported(f"{fields.key('value_dim')} differs from {fields.key('head_dim')}, which is not supported")
    kind = "factors" if "factors" in lists else "longrope" if "long" in lists else _gguf_kind(fields)
    theta, theta_local = fields.number("theta", 10_000.0, low=1.01), fields.number("theta_local", 10_000.0, low=1.01)
    rotations = (rotation(fields, kind=kind, theta=theta, head_dim=heads.dim, context=context),
                 rotation(fields, kind="default", theta=theta_local, head_dim=heads.dim, context=context))
    eos = Fields(source.metadata, {"eos": "tokenizer.ggml.eos_token_id"}).integers("eos")
    return _config(fields, heads=heads, context=context, max_len=max_len, eos=frozenset(eos),
                   vocab=source.read("embed").shape[0], bias="layers.0.attn.q.bias" in names,
                   tied="head" not in names, rotations=rotations)


def _config(fields: Fields, *, heads: Heads, context: int, max_len: int | None, rotations: tuple[Rotation, Rotation],
            vocab: int, tied: bool, bias: bool, eos: frozenset[int]) -> Config:
    """The part that reads the same in both vocabularies."""
    layers = fields.integer("layers", high=4096)
    if fields.flag("mlp_bias") or fields.flag("bidirectional"):
        raise Unsupported("biases in the MLP and bidirectional attention are not supported")
    scalar = fields.number("query_scalar", 0.0)
    return Config(
        dim=fields.integer("dim"), layers=layers, heads=heads, ffn_dim=fields.integer("ffn_dim", high=1 << 24),
        vocab=vocab,
        eps=fields.number("eps", 1e-6, high=1.0), context=max(context, rotations[0].reach),
        max_len=_max_len(max_len, rotations[0]), tied=tied, bias=bias, activation=_activation(fields),
        windows=_windows(fields, layers), rotations=rotations, scale=scalar**-0.5 if scalar else None,
        softcap=fields.number("softcap", 0.0), logit_softcap=fields.number("logit_softcap", 0.0),
        mixture=_mixture(fields, layers), eos=eos)


def _table(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise InvalidModel(f"the model's {key} is {type(value).__name__}, expected an object")
    return value or {}


def _heads(fields: Fields) -> Heads:
    q = fields.integer("q_heads", high=4096)
    kv = fields.integer("kv_heads", q, high=q)
    dim = fields.integer("head_dim", fields.integer("dim") // q, high=4096)
    if q % kv or dim % 2:
        raise InvalidModel(f"the model has {q} query heads of {dim} on {kv} key heads, "
                           "expected a multiple of them, and an even width")
    return Heads(q, kv, dim)


def _context(fields: Fields) -> int:
    return fields.integer("context", high=POSITIONS)


def _max_len(asked: int | None, rotation: Rotation) -> int:
    if asked is not None and asked > rotation.reach and not isinstance(rotation.scaling, DynamicScaling):
        raise Unsupported(f"{asked} positions exceed the model's context of {rotation.reach}",
                          hint=f"ask for at most {rotation.reach}")
    return rotation.reach if asked is None else asked


def _kind(table: Mapping[str, Any]) -> str:
    """The scaling that a table of rope parameters names; where it has long factors, older files say 'su' or 'yarn'."""
    if table.get("long_factor") is not None:
        return "longrope"
    kind = table.get("rope_type", table.get("type", "default"))
    return kind if isinstance(kind, str) else repr(kind)


def _gguf_kind(fields: Fields) -> str:
    """The scaling that a file names; a factor alone means the linear one, as in files from before there were others."""
    kind = fields.text("scaling", "none" if fields.get("factor") is None else "linear")
    return "default" if kind == "none" else kind


def _activation(fields: Fields) -> Activation:
    name = fields.text("activation", "silu")
    if name not in ACTIVATIONS:
        raise Unsupported(f"activation '{name}' is not supported", hint=f"supported: {', '.join(sorted(ACTIVATIONS))}")
    return cast(Activation, ACTIVATIONS[name])


def _windows(fields: Fields, layers: int) -> tuple[int, ...]:
    window = fields.integer("window", 0, low=0, high=POSITIONS) if fields.flag("windowed", True) else 0
    return tuple(window if used else 0 for used in _windowed(fields, layers)) if window else (0,) * layers


def _windowed(fields: Fields, layers: int) -> list[bool]:
    """Which layers see a window only: as their types say, or all but every n-th, or from a layer on, or all."""
    types, pattern = fields.get("layer_types"), fields.get("window_pattern")
    if types is not None:
        kinds = ("full_attention", "sliding_attention")
        if not isinstance(types, list) or len(types) != layers or not all(t in kinds for t in types):
            raise fields.error("layer_types", types, f"a list of {layers}, each one of {', '.join(kinds)}")
        return [t == "sliding_attention" for t in types]
    if hasattr(pattern, "__len__") and not isinstance(pattern, str):
        if len(pattern) != layers:
            raise fields.error("window_pattern", pattern, f"a list of {layers}")
        return [bool(windowed) for windowed in pattern]
    period = fields.integer("window_pattern", 0, low=0)
    start = fields.integer("window_start", 0, low=0)
    return [bool((i + 1) % period) if period else i >= start for i in range(layers)]


def _mixture(fields: Fields, layers: int) -> Mixture | None:
    experts = fields.integer("experts", 0, low=0, high=4096)
    if not experts:
        return None
    step = fields.integer("sparse_step", 1)
    dense = {*fields.integers("dense_layers"), *(i for i in range(layers) if (i + 1) % step)}
    dim = fields.integer("expert_dim", fields.integer("ffn_dim", high=1 << 24), high=1 << 24)
    return Mixture(experts, fields.integer("experts_used", high=experts), dim, fields.flag("normalize"),
                   frozenset(dense))
