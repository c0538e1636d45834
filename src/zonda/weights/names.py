"""The names that GGUF and Hugging Face files give to tensors, as rows that lead to canonical names.

`#` in a row stands for a number. A row's operation undoes what the file's maker did to the tensor.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zonda.errors import InvalidModel
from zonda.weights.formats import pile
from zonda.weights.formats.dense import Dense
from zonda.weights.source import Weight

NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")
SUFFIXES = {".weight": "", ".bias": ".bias"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What operations ask of a checkpoint: its architecture and, only when needed, the sizes of its heads."""

    architecture: str
    metadata: Mapping[str, Any]
    heads_key: str
    kv_heads_key: str
    head_dim_key: str
    dim_key: str

    @classmethod
    def of_gguf(cls, metadata: Mapping[str, Any]) -> Facts:
        name = metadata.get("general.architecture")
        if not isinstance(name, str):
            raise InvalidModel("general.architecture is missing or not a string", hint="it may be no language model")
        attention = f"{name}.attention."
        return cls(name, metadata, f"{attention}head_count", f"{attention}head_count_kv", f"{attention}key_length",
                   f"{name}.embedding_length")

    @classmethod
    def of_hugging_face(cls, metadata: Mapping[str, Any]) -> Facts:
        names, text = metadata.get("architectures"), metadata.get("text_config")
        name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
        flat = {**metadata, **text} if isinstance(text, dict) else metadata
        return cls(name, flat, "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size")

    @property
    def heads(self) -> int:
        return self._count(self.heads_key)

    @property
    def kv_heads(self) -> int:
        return self.heads if self.metadata.get(self.kv_heads_key) is None else self._count(self.kv_heads_key)

    @property
    def head_dim(self) -> int:
        if self.metadata.get(self.head_dim_key) is None:
            return self._count(self.dim_key) // self.heads
        return self._count(self.head_dim_key)

    def _count(self, key: str) -> int:
        value = self.metadata.get(key)
        if isinstance(value, np.ndarray | list) and len(value) and all(one == value[0] for one in value[:4096]):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 < value < 1 << 31:
            raise InvalidModel(f"{key} is {value!r:.60}, expected a positive integer")
        return int(value)


Operation = Callable[[Weight, Facts], Weight]


@dataclass(frozen=True, slots=True)
class Row:
    """The file's name of a tensor and its canonical name, less `.weight`; without one the tensor is ignored.

    A name with one number more than its canonical name is one matrix of a stack.
    """

    file: str
    name: str | None
    operation: Operation | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """A table of rows. `prefixes` are rewritten before the look-up; tensors under an `ignored` prefix do not count."""

    rows: Mapping[str, tuple[Row, ...]]
    prefixes: Mapping[str, str]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Row], *, prefixes: Mapping[str, str] | None = None,
           ignored: tuple[str, ...] = ()) -> Names:
        table: dict[str, tuple[Row, ...]] = {}
        for row in rows:
            table[row.file] = (*table.get(row.file, ()), row)
        return cls(table, prefixes or {}, ignored)

    def having(self, rows: Iterable[Row]) -> Names:
        """The table with these rows in place of those for the same tensors."""
        return Names({**self.rows, **Names.of(rows).rows}, self.prefixes, self.ignored)

    def find(self, tensor: str) -> list[tuple[str, int, Operation | None]]:
        """Canonical names that a tensor feeds, each with its place in a stack, or -1, and the operation."""
        if tensor.startswith(self.ignored):
            return []
        before, after = next(((a, b) for a, b in self.prefixes.items() if tensor.startswith(a)), ("", ""))
        stem, numbers, suffix = _generalize(after + tensor.removeprefix(before))
        if stem not in self.rows or "#" in tensor:
            return [(tensor, -1, None)]
        return [_fill(row.name, numbers, suffix, row.operation) for row in self.rows[stem] if row.name is not None]


def _generalize(tensor: str) -> tuple[str, list[str], str]:
    """`blk.3.attn_q.bias` -> `blk.#.attn_q`, [3], `.bias`."""
    ending = next((ending for ending in SUFFIXES if tensor.endswith(ending)), "")
    parts = tensor.removesuffix(ending).split(".")
    numbers = [part for part in parts if NUMBER.fullmatch(part)]
    return ".".join("#" if NUMBER.fullmatch(part) else part for part in parts), numbers, SUFFIXES.get(ending, "")


def _fill(name: str, numbers: list[str], suffix: str, operation: Operation | None) -> tuple[str, int, Operation | None]:
    own = name.count("#")
    for number in numbers[:own]:
        name = name.replace("#", number, 1)
    return name + suffix, int(numbers[own]) if len(numbers) > own else -1, operation


class Tensors:
    """The tensors of a checkpoint under canonical names; a tensor that no row knows keeps its own."""

    def __init__(self, tensors: Iterable[str], names: Names, facts: Facts) -> None:
        self.facts = facts
        self._parts: dict[str, dict[int, tuple[str, Operation | None]]] = {}
        for tensor in tensors:
            for name, place, operation in names.find(tensor):
                parts = self._parts.setdefault(name, {})
                if place in parts or (parts and -1 in (place, *parts)):
                    other = next(iter(parts.values()))[0]
                    raise InvalidModel(f"tensors {other!r:.100} and {tensor!r:.100} are both {name:.100}")
                parts[place] = tensor, operation

    def names(self) -> set[str]:
        return set(self._parts)

    def read(self, name: str, fetch: Callable[[str], Weight]) -> Weight:
        """Fetch the tensors behind a canonical name, apply their operations, pile up what belongs on a stack."""
        parts = self._parts.get(name)
        if parts is None:
            raise InvalidModel(f"the checkpoint has no tensor for {name}", hint="the file may be incomplete")
        if -1 in parts:
            return self._read(*parts[-1], fetch)
        missing = next((place for place in range(len(parts)) if place not in parts), None)
        if missing is not None:
            raise InvalidModel(f"{name} has {len(parts)} matrices, but number {missing} is missing")
        return pile(name, [self._read(*parts[place], fetch) for place in range(len(parts))])

    def _read(self, tensor: str, operation: Operation | None, fetch: Callable[[str], Weight]) -> Weight:
        weight = fetch(tensor)
        return operation(weight, self.facts) if operation else weight


def add_one(weight: Weight, facts: Facts) -> Weight:
    return Dense.of(weight.dense() + np.float32(1))


def first_half(weight: Weight, facts: Facts) -> Weight:
    return weight.rows(slice(0, _half(weight)))


def second_half(weight: Weight, facts: Facts) -> Weight:
    return weight.rows(slice(_half(weight), None))


def q_rows(weight: Weight, facts: Facts) -> Weight:
    return weight.rows(_qkv(weight, facts)[0])


def k_rows(weight: Weight, facts: Facts) -> Weight:
    return weight.rows(_qkv(weight, facts)[1])


def v_rows(weight: Weight, facts: Facts) -> Weight:
    return weight.rows(_qkv(weight, facts)[2])


def q_half_split(weight: Weight, facts: Facts) -> Weight:
    return _half_split(weight, facts.heads)


def k_half_split(weight: Weight, facts: Facts) -> Weight:
    return _half_split(weight, facts.kv_heads)


def _rows(weight: Weight) -> int:
    if not weight.shape:
        raise InvalidModel("a projection is a single number, expected a matrix")
    return weight.shape[-2] if len(weight.shape) > 1 else weight.shape[0]


def _half(weight: Weight) -> int:
    if _rows(weight) % 2:
        raise InvalidModel(f"a fused gate and up projection has {_rows(weight)} rows, expected an even number")
    return _rows(weight) // 2


def _qkv(weight: Weight, facts: Facts) -> tuple[slice, slice, slice]:
    q, kv = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    if _rows(weight) != q + 2 * kv:
        raise InvalidModel(f"a fused query, key and value projection has {_rows(weight)} rows, expected {q} + 2·{kv}")
    return slice(0, q), slice(q, q + kv), slice(q + kv, q + 2 * kv)


def _half_split(weight: Weight, heads: int) -> Weight:
    """Rows of each head in the order 0 2 4 … 1 3 5 …, which takes rotary pairs from neighbours to halves."""
    rows = _rows(weight)
    if rows % (2 * heads):
        raise InvalidModel(f"a query or key projection has {rows} rows, expected a multiple of {2 * heads}")
    return weight.rows(np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).ravel())


def _layers(prefix: str, rows: Mapping[str, str]) -> list[Row]:
    return [Row(prefix + file, f"layers.#.{name}") for file, name in rows.items()]


QKV = (("attn.q", q_rows), ("attn.k", k_rows), ("attn.v", v_rows))
GATE_UP = (("ffn.gate", first_half), ("ffn.up", second_half))


def _fused(file: str, parts: tuple[tuple[str, Operation], ...]) -> list[Row]:
    return [Row(file, f"layers.#.{name}", operation) for name, operation in parts]


GGUF = Names.of([
    Row("token_embd", "embed"),
    Row("output_norm", "norm"),
    Row("output", "head"),
    Row("rope_freqs", "rope.factors"),
    Row("rope_factors_long", "rope.long"),
    Row("rope_factors_short", "rope.short"),
    Row("blk.#.attn_rot_embd", None),
    *_fused("blk.#.attn_qkv", QKV),
    *_layers("blk.#.", {
        "attn_norm": "attn_norm", "attn_q": "attn.q", "attn_k": "attn.k", "attn_v": "attn.v", "attn_output": "attn.o",
        "attn_q_norm": "attn.q_norm", "attn_k_norm": "attn.k_norm", "post_attention_norm": "attn_post_norm",
        "ffn_norm": "ffn_norm", "ffn_gate": "ffn.gate", "ffn_up": "ffn.up", "ffn_down": "ffn.down",
        "post_ffw_norm": "ffn_post_norm", "ffn_gate_inp": "ffn.router", "ffn_gate_exps": "ffn.gate",
        "ffn_up_exps": "ffn.up", "ffn_down_exps": "ffn.down"}),
])

GGUF_ODD = {
    "llama": [Row("blk.#.attn_q", "layers.#.attn.q", q_half_split),
              Row("blk.#.attn_k", "layers.#.attn.k", k_half_split)],
    "phi3": _fused("blk.#.ffn_up", GATE_UP),
}
"""Rows of one `general.architecture`, before those for all."""

HUGGING_FACE = Names.of([
    Row("model.embed_tokens", "embed"),
    Row("model.norm", "norm"),
    Row("lm_head", "head"),
    Row("model.rotary_emb.inv_freq", None),
    Row("model.layers.#.self_attn.rotary_emb.inv_freq", None),
    *_fused("model.layers.#.self_attn.qkv_proj", QKV),
    *_fused("model.layers.#.mlp.gate_up_proj", GATE_UP),
    *_fused("model.layers.#.mlp.experts.gate_up_proj", GATE_UP),
    *_layers("model.layers.#.", {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn.q",
        "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v", "self_attn.o_proj": "attn.o",
        "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm", "mlp.gate_proj": "ffn.gate",
        "mlp.up_proj": "ffn.up", "mlp.down_proj": "ffn.down", "mlp.gate": "ffn.router",
        "mlp.experts.down_proj": "ffn.down", "mlp.experts.#.gate_proj": "ffn.gate", "mlp.experts.#.up_proj": "ffn.up",
        "mlp.experts.#.down_proj": "ffn.down"}),
], prefixes={"model.language_model.": "model.", "language_model.": "",
             "embed_tokens.": "model.embed_tokens.", "layers.": "model.layers.", "norm.": "model.norm."},
   ignored=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."))

GEMMA = [
    Row("model.norm", "norm", add_one),
    *(Row(f"model.layers.#.{file}", f"layers.#.{name}", add_one) for file, name in {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "attn_post_norm",
        "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "ffn_post_norm",
        "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm"}.items()),
]

HUGGING_FACE_ODD = {"Gemma3ForCausalLM": GEMMA, "Gemma3ForConditionalGeneration": GEMMA}
"""Rows of one class in `architectures`, before those for all."""
