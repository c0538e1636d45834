"""Command R7B and Command A: `<|START_ACTION|>[{"tool_name": ..., "parameters": ...}]<|END_ACTION|>`."""
from __future__ import annotations

from zonda.text.dialects.tagged import between

DIALECT = between("command", "<|START_ACTION|>", "<|END_ACTION|>", ends=True, words=("tool_name", "parameters"))
