from __future__ import annotations

import pytest

from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound, Unsupported
from zonda.weights.choose import Wish, choose, variants

MANY = [f"m-{label}.gguf" for label in (
    "Q2_K", "Q2_K_L", "Q2_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q4_0", "Q4_1", "Q4_K_L", "Q4_K_M", "Q4_K_S", "Q5_K_M",
    "Q5_K_S", "Q6_K", "Q6_K_L", "Q8_0", "IQ4_XS", "IQ4_NL", "IQ1_S", "BF16", "f16", "UD-Q4_K_XL", "UD-Q8_K_XL")]


def chosen(names, quant=None, **wish):
    return choose(names, Wish(quant=quant, **wish), "here")


def without(*labels: str) -> list[str]:
    return [name for name in MANY if not any(f"m-{label}.gguf" == name for label in labels)]


@pytest.mark.parametrize(("quant", "label"), [
    ("2", "Q2_K"), ("3", "Q3_K_M"), ("4", "Q4_K_M"), ("5", "Q5_K_M"), ("6", "Q6_K"), ("8", "Q8_0"), (None, "Q4_K_M"),
    ("q4", "Q4_K_M"), ("Q8", "Q8_0")])
def test_the_best_file_of_a_width_is_chosen(quant, label):
    assert chosen(MANY, quant) == ("gguf", (f"m-{label}.gguf",))


def test_files_of_four_bits_rank_in_a_fixed_order():
    order = ["Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_1", "Q4_0", "UD-Q4_K_XL"]
    for gone, label in enumerate(order):
        assert chosen(without(*order[:gone]), "4") == ("gguf", (f"m-{label}.gguf",))


def test_any_other_file_of_the_width_comes_last():
    assert chosen(["m-Q4_0_4_4.gguf", "m-UD-Q4_K_XL.gguf"], "4")[1] == ("m-UD-Q4_K_XL.gguf",)
    assert chosen(["m-Q4_0_4_4.gguf", "m-Q8_0.gguf"], "4")[1] == ("m-Q4_0_4_4.gguf",)


@pytest.mark.parametrize(("quant", "name"), [("q4_1", "m-Q4_1.gguf"), ("Q3_K_L", "m-Q3_K_L.gguf"),
                                             ("f16", "m-f16.gguf"),
                                             ("bf16", "m-BF16.gguf"), ("ud-q4_k_xl", "m-UD-Q4_K_XL.gguf"),
                                             ("UD_Q8_K_XL", "m-UD-Q8_K_XL.gguf"), ("iq4_xs", "m-IQ4_XS.gguf")])
def test_a_file_is_chosen_by_the_name_of_its_quantization(quant, name):
    assert chosen(MANY, quant) == ("gguf", (name,))


@pytest.mark.parametrize("quant", ["7", "16", "q9_9", "nothing", "4; rm"])
def test_a_quantization_that_is_not_there_is_reported_with_those_that_are(quant):
    with pytest.raises(ModelNotFound, match=r"(?s)here has no GGUF file for --quant.*m-Q2_K\.gguf.* and 11 more"):
        chosen(MANY, quant)


def test_a_width_that_only_iq_files_have_is_not_supported():
    with pytest.raises(Unsupported, match="only IQ files of 4 bits"):
        chosen(["m-IQ4_XS.gguf", "m-Q8_0.gguf"], "4")


def test_auto_is_refused_for_gguf():
    with pytest.raises(Unsupported, match="--quant auto"):
        chosen(MANY, "auto")


def test_two_models_in_one_place_are_ambiguous():
    with pytest.raises(InvalidModel, match=r"(?s)several files that fit: a-Q4_0\.gguf, b-Q4_0\.gguf.*-f FILE"):
        chosen(["a-Q4_0.gguf", "b-Q4_0.gguf"], "4")
    with pytest.raises(InvalidModel, match="several files that fit"):
        chosen(["a-Q4_K_M.gguf", "b-Q4_0.gguf"])
    assert chosen(["a-Q4_0.gguf", "b-Q8_0.gguf"], "8")[1] == ("b-Q8_0.gguf",)


def test_files_of_equal_rank_are_ambiguous():
    with pytest.raises(InvalidModel, match="several files that fit"):
        chosen(["x/m-Q4_0.gguf", "y/m-Q4_0.gguf"], "4")


def test_a_single_file_needs_no_quantization_in_its_name():
    assert chosen(["model.gguf", "README.md"]) == ("gguf", ("model.gguf",))
    assert chosen(["m-IQ4_XS.gguf"]) == ("gguf", ("m-IQ4_XS.gguf",))


def test_shards_count_as_one_file():
    shards = tuple(f"Q4_K_M/m-Q4_K_M-{n:05}-of-00003.gguf" for n in (1, 2, 3))
    assert chosen([*reversed(shards), "m-Q8_0.gguf"], "4") == ("gguf", shards)
    assert chosen([*shards], files=(shards[1],)) == ("gguf", shards)
    with pytest.raises(InvalidModel, match="2 of 3 shards"):
        chosen(shards[:2], "4")


def test_projectors_and_importance_matrices_are_no_models():
    assert chosen(["mmproj-m-f16.gguf", "m-Q4_0.gguf", "m.imatrix.gguf"]) == ("gguf", ("m-Q4_0.gguf",))


@pytest.mark.parametrize(("name", "label", "base"), [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1", "smollm2-135m-instruct"),
    ("gemma-3-270m-q4_k_m.gguf", "Q4_K_M", "gemma-3-270m"),
    ("x/Qwen3-0.6B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "qwen3-0.6b"),
    ("Qwen3-Q8-tuned-Q5_K_S.gguf", "Q5_K_S", "qwen3-q8-tuned"),
    ("plain.gguf", "", "plain"), ("m-bf16.gguf", "BF16", "m"), ("q8_0.gguf", "Q8_0", "")])
def test_quantization_and_model_are_seen_in_names(name, label, base):
    assert [(one.label, one.base) for one in variants([name])] == [(label, base)]


def test_safetensors_come_before_gguf_unless_gguf_is_asked_for():
    both = ["model.safetensors", "m-Q4_0.gguf", "config.json"]
    assert chosen(both) == ("safetensors", ("model.safetensors",))
    assert chosen(both, format="gguf") == ("gguf", ("m-Q4_0.gguf",))
    assert chosen(both, "4", format="gguf") == ("gguf", ("m-Q4_0.gguf",))
    with pytest.raises(Unsupported, match=r"(?s)--quant 4 may mean either.*--format gguf"):
        chosen(both, "4")


def test_safetensors_take_a_quantization_that_can_be_made_while_loading():
    whole = ("safetensors", ("model.safetensors",))
    assert chosen(["model.safetensors"], "4") == chosen(["model.safetensors"], "q4_k_m") == whole
    assert chosen(["model.safetensors", "m-Q4_0.gguf"], "8", format="plain") == whole
    with pytest.raises(InvalidRequest, match="'auto' is not supported"):
        chosen(["model.safetensors"], "auto")


def test_only_the_whole_model_is_taken_from_a_repository():
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.fp16.safetensors",
             "original/consolidated.safetensors", "consolidated.safetensors", "adapter_model.safetensors"]
    assert chosen(names)[1] == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert chosen(["consolidated.safetensors", "other.safetensors"])[1] == ("other.safetensors",)
    assert chosen([*names, "model.safetensors"])[1] == ("model.safetensors",)


def test_files_can_be_named():
    assert chosen(MANY, files=("m-IQ1_S.gguf",)) == ("gguf", ("m-IQ1_S.gguf",))
    assert chosen(["a.gguf", "b.gguf"], files=("b.gguf", "a.gguf")) == ("gguf", ("b.gguf", "a.gguf"))
    with pytest.raises(ModelNotFound, match=r"(?s)here has no file x\.gguf.*it has a\.gguf"):
        chosen(["a.gguf"], files=("x.gguf",))
    with pytest.raises(Unsupported, match="pickle"):
        chosen(["a.bin"], files=("a.bin",))
    with pytest.raises(Unsupported, match="several safetensors"):
        chosen(["a.safetensors", "b.safetensors"], files=("a.safetensors", "b.safetensors"))
    with pytest.raises(Unsupported, match="not supported"):
        chosen(["a.gguf", "b.safetensors"], files=("a.gguf", "b.safetensors"))


@pytest.mark.parametrize(("names", "error"), [(["README.md"], ModelNotFound), ([], ModelNotFound),
                                              (["pytorch_model.bin"], Unsupported)])
def test_a_place_without_weights_is_reported(names, error):
    with pytest.raises(error, match="here has"):
        chosen(names)
    with pytest.raises(ModelNotFound, match="no GGUF file"):
        chosen(names, format="gguf")


@pytest.mark.parametrize(("files", "said", "told"), [
    (("m.gguf",), {"format": "plain"}, "m.gguf is a gguf file, which --format plain excludes"),
    (("model.safetensors",), {"format": "gguf"}, "model.safetensors is a safetensors file, which --format gguf"),
    (("m.gguf",), {"quant": "4"}, "--quant 4 chooses among files, but m.gguf is named")])
def test_a_file_that_is_named_must_be_what_else_is_asked_for(files, said, told):
    with pytest.raises(InvalidRequest, match=told):
        chosen(["m.gguf", "model.safetensors"], files=files, **said)
    kind, names = chosen(["m.gguf", "model.safetensors"], files=files)
    assert names == files and files[0].endswith(kind)


def test_a_folder_of_the_other_format_is_told_from_an_empty_one():
    with pytest.raises(ModelNotFound, match="here has GGUF files alone, which --format plain excludes"):
        chosen(MANY, format="plain")
