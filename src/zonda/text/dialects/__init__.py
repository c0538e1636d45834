"""The formats in which models write tool calls, in the order in which a template is searched."""
from __future__ import annotations

from zonda.errors import InvalidRequest
from zonda.text.dialects import (
    apertus,
    command,
    deepseek,
    functionary,
    gemma,
    generic,
    gigachat,
    glm,
    granite,
    harmony,
    hermes,
    hunyuan,
    invoke,
    kimi,
    kimi3,
    llama,
    minimax3,
    mistral,
    nemotron,
    phi,
    pythonic,
    qwen_xml,
    solar,
)
from zonda.text.dialects.dialect import Dialect

DIALECTS = (
    harmony.DIALECT, functionary.DIALECT, solar.DIALECT, apertus.DIALECT, gigachat.DIALECT, gigachat.THREE, glm.HY3,
    minimax3.DIALECT, invoke.MINIMAX, invoke.MINICPM, invoke.ATEM, invoke.DEEPSEEK, invoke.DEEPSEEK4,
    command.DIALECT, gemma.GEMMA4, gemma.FUNCTION, pythonic.LIQUID, kimi.DIALECT, kimi3.DIALECT, deepseek.DIALECT,
    deepseek.BARE, mistral.DIALECT, mistral.LISTED, hunyuan.DIALECT, glm.DIALECT, qwen_xml.DIALECT, hermes.DIALECT,
    phi.DIALECT, granite.DIALECT, nemotron.DIALECT, pythonic.DIALECT, llama.DIALECT, generic.DIALECT,
)
GENERIC = generic.DIALECT
_BY_NAME = {each.name: each for each in DIALECTS}


def find(template: str) -> Dialect:
    """The format that a chat template shows; the generic one where it shows none."""
    return next((each for each in DIALECTS if each.fits(template)), GENERIC)


def named(name: str) -> Dialect:
    """The format of this name."""
    if name not in _BY_NAME:
        raise InvalidRequest(f"no tool-call format {name!r}", hint=f"known: {', '.join(_BY_NAME)}",
                             param="tool_dialect")
    return _BY_NAME[name]
