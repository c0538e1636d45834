"""Hunyuan: `<tool_calls>[{...}]</tool_calls>`."""
from __future__ import annotations

from zonda.text.dialects.tagged import between

DIALECT = between("hunyuan", "<tool_calls>", "</tool_calls>")
