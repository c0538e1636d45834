"""What other engines' command lines have and this one has not: who asks for it is told so, and what to do instead."""
from __future__ import annotations

import click

COMMANDS = {
    "quantize": "weights are quantized while they load: `zonda run -m MODEL --isq q4k`",
    "update": "`pip install --upgrade zonda` does that",
    "uninstall": "`pip uninstall zonda` does that",
    "uqff": "UQFF files are not read; `--isq` quantizes safetensors files while they load",
}
"""Command -> what to do."""
KINDS = dict.fromkeys(("multimodal", "diffusion", "speech", "embedding"), "Zonda runs models of text alone")
"""Kinds of models -> why there are none."""
_OPTIONS = {
    "adapters are not supported":
        "--adapter --enable-lora --lora --lora-modules --lora-max-adapters --lora-max-rank --max-lora-rank "
        "--lora-max-bytes --legacy-lora --legacy-lora-order --xlora --xlora-order --tgt-non-granular-index",
    "models take text alone":
        "--image --video --audio --mmproj --max-edge --max-num-images --max-image-length",
    "tools are carried out by the client, none by Zonda":
        "--agent --agentic --enable-search --search-embedding-model --enable-code-execution --code-exec-python "
        "--code-exec-timeout --code-exec-workdir --enable-shell --shell-path --shell-timeout --shell-workdir "
        "--skills-dir --agent-permission --code-exec-permission --sandbox --sandbox-profile --sb-max-memory-mb "
        "--sb-max-cpu-secs --sb-max-procs --sandbox-network --max-tool-rounds --tool-dispatch-url --mcp-config "
        "--mcp-port",
    "there is no speculative decoding": "--mtp --mtp-model --mtp-n-predict",
    "models are not cut to a smaller shape": "--matformer-config-path --matformer-slice-name",
    "a model runs on one device, named by --device": "--device-layers -n --topology",
    "the plan is made for --max-seqs sequences": "--max-batch-size",
    "UQFF files are not read; --isq quantizes while loading": "--from-uqff",
    "--isq takes every matrix alike, by its weights alone": "--isq-organization --imatrix --calibration-file",
    "GGML files from before GGUF are not read": "--gqa",
    "the cache is always there, and in pages": "--paged-attn --pa-block-size --no-kv-cache",
    "--kv-dtype fp8 is for a cache of eight-bit floats": "--pa-cache-type",
    "a step takes prompts and answers alike, within --max-num-batched-tokens": "--max-decode-steps-before-prefill",
}
OPTIONS = {option: why for why, options in _OPTIONS.items() for option in options.split()}
"""Option -> why it is not there, or what is instead."""


def explained(error: click.ClickException) -> click.ClickException:
    """The error, or a clearer one of an option that other engines have, or that stands in the wrong place."""
    if not isinstance(error, click.NoSuchOption):
        return error
    if error.option_name in OPTIONS:
        return click.UsageError(f"{error.option_name} is not offered: {OPTIONS[error.option_name]}.", error.ctx)
    if error.ctx and error.ctx.parent is None:
        return click.UsageError(f"{error.message} Options of a command come after its name.", error.ctx)
    return error
