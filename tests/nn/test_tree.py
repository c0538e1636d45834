"""The tree of blocks, and how the loader fills it."""
import numpy as np
import pytest
from blocks import Memory, Plain, random_arrays

from zonda.errors import InvalidModel
from zonda.kernels.reference import ReferenceOps
from zonda.nn import (
    Attention,
    Block,
    Decoder,
    Embedding,
    GatedMLP,
    Heads,
    Linear,
    Mask,
    MoE,
    Projection,
    RMSNorm,
    Rope,
)
from zonda.weights.load import load


def layer(rope, **options):
    return Block(attn_norm=RMSNorm(8, 1e-6), attn=Attention(8, Heads(2, 1, 4), rope=rope, **options),
                 ffn_norm=RMSNorm(8, 1e-6), ffn=GatedMLP(8, 12))


def decoder(*, head=None, layers=2, **options):
    rope = Rope(4)
    return Decoder(embed=Embedding(16, 8), layers=(layer(rope, **options) for _ in range(layers)),
                   norm=RMSNorm(8, 1e-6), head=head)


def names(block):
    return set(random_arrays(block))


def test_parameters_have_canonical_names():
    model = decoder(head=Linear(8, 16), layers=1, bias=True, q_norm=RMSNorm(4, 1e-6))
    assert names(model) == {"embed", "norm", "head"} | {f"layers.0.{name}" for name in (
        "attn_norm", "attn.q", "attn.k", "attn.v", "attn.q.bias", "attn.k.bias", "attn.v.bias", "attn.o", "attn.q_norm",
        "ffn_norm", "ffn.gate", "ffn.up", "ffn.down")}


def test_attention_with_sinks_has_one_for_each_query_head():
    model = decoder(layers=1, mask=Mask(sinks=True))
    source = Memory(random_arrays(model))
    load(model, source, ReferenceOps())
    np.testing.assert_array_equal(model.attentions[0].layer.sinks, source.read("layers.0.attn.sinks").dense())
    assert model.attentions[0].layer.sinks.shape == (2,)


def test_experts_are_stacks_under_the_names_of_a_plain_mlp():
    moe = MoE(8, 4, experts=3, top=2)
    shapes = {name: block.parameters()[""] for name, block in moe.walk() if block.parameters()}
    assert shapes == {"router": (3, 8), "gate": (3, 4, 8), "up": (3, 4, 8), "down": (3, 8, 4)}


def test_attention_layers_number_their_caches():
    model = decoder(layers=3, mask=Mask(window=5))
    assert [a.index for a in model.attentions] == [0, 1, 2]
    assert model.caches[2].heads == Heads(2, 1, 4) and model.caches[2].window == 5


def test_loading_reads_each_parameter_once_and_tells_progress():
    model, told = decoder(), []
    source = Memory(random_arrays(model))
    load(model, source, ReferenceOps(), progress=lambda done, total: told.append((done, total)))
    assert sorted(source.reads) == sorted(source.names())
    assert told[-1] == (20, 20) and told == sorted(told)


def test_a_source_may_give_back_memory_after_each_block():
    model, given_back = decoder(layers=1), []
    source = Memory(random_arrays(model))
    source.release = lambda: given_back.append(len(source.reads))
    load(model, source, ReferenceOps())
    assert given_back == [1, 2, 5, 6, 7, 8, 9, 10, 11]


def test_a_tied_head_is_the_prepared_embedding_and_a_stored_copy_is_left_alone():
    model = decoder()
    source = Memory({**random_arrays(model), "head": np.zeros((16, 8))})
    load(model, source, ReferenceOps())
    assert model.head is None and "head" not in source.reads


def test_a_failed_load_names_what_is_missing_and_what_is_unknown():
    model = decoder()
    arrays = random_arrays(model)
    del arrays["layers.1.attn.k"]
    arrays["layers.1.attn.k.bias"] = np.zeros(4)
    with pytest.raises(InvalidModel, match=r"missing layers\.1\.attn\.k; unknown layers\.1\.attn\.k\.bias"):
        load(model, Memory(arrays), ReferenceOps())


def test_a_long_list_of_missing_names_is_cut():
    with pytest.raises(InvalidModel, match="and 12 more; nothing unknown"):
        load(decoder(), Memory({}), ReferenceOps())


def test_a_wrong_shape_is_named_with_both_shapes():
    model = decoder()
    source = Memory({**random_arrays(model), "layers.0.ffn.up": np.zeros((12, 9))})
    with pytest.raises(InvalidModel, match=r"layers\.0\.ffn\.up has shape \(12, 9\).*expected \(12, 8\)"):
        load(model, source, ReferenceOps())


def test_hyper_parameters_among_the_tensors_are_not_unknown():
    model = decoder()
    load(model, Memory({**random_arrays(model), "rope.factors": np.ones(2)}), ReferenceOps())


def test_siblings_of_one_format_are_stacked_and_others_stay_apart():
    block = Projection(4, q=2, k=3, v=5, bias=True)
    arrays = random_arrays(block)
    source = Memory({**arrays, "v": Plain(arrays["v"], "q6_k")})
    load(block, source, ReferenceOps())
    assert [w.shape for w in block.weights] == [(5, 4), (5, 4)] and [b.shape for b in block.biases] == [(5,), (5,)]
    x = np.ones((1, 4), np.float32)
    expected = np.concatenate([x @ arrays[n].T + arrays[f"{n}.bias"] for n in "qkv"], axis=1)
    np.testing.assert_allclose(block(x), expected, rtol=1e-6)


def test_a_format_is_set_before_siblings_are_stacked():
    block, seen = Projection(4, q=2, k=2), []

    def convert(name, weight):
        seen.append((name, weight.shape))
        return Plain(weight.values * 2)

    arrays = random_arrays(block)
    load(block, Memory(arrays), ReferenceOps(), convert=convert)
    assert seen == [("q", (2, 4)), ("k", (2, 4))]
    np.testing.assert_array_equal(block.weights[0], 2 * np.concatenate([arrays["q"], arrays["k"]]))


def test_a_shared_rotation_is_prepared_once():
    model = decoder(layers=3)
    load(model, Memory(random_arrays(model)), ReferenceOps())
    tables = {id(a.layer.rotary.frequencies) for a in model.attentions}
    assert len(tables) == 1
