"""GigaChat 3.1: `<|function_call|>{"name": ..., "arguments": ...}`; version 3 has a message of a role for it."""
from __future__ import annotations

from dataclasses import replace

from zonda.text.dialects.tagged import between

DIALECT = between("gigachat", "<|function_call|>", listed=False)
_ROLE = "function call<|role_sep|>"
THREE = replace(between("gigachat3", f"{_ROLE}\n", listed=False, tells=(("function call", "<|role_sep|>"),)),
                marks=("<|role_sep|>",))
