"""Phi-4: `<|tool_call|>[{...}]<|/tool_call|>`, or `functools[{...}]`."""
from __future__ import annotations

from zonda.text.dialects.tagged import between

DIALECT = between("phi", "<|tool_call|>", "<|/tool_call|>", tells=(("<|/tool_call|>",), ("functools",)),
                  extra=("functools",))
