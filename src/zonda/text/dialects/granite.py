"""Granite 3: `<|tool_call|>[{...}]`, or `<tool_call>[{...}]`."""
from __future__ import annotations

from zonda.text.dialects.tagged import between

DIALECT = between("granite", "<|tool_call|>", ends=True, extra=("<tool_call>",))
