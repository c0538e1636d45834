"""Apertus: `<|tools_prefix|>[{NAME: {...}}]<|tools_suffix|>`."""
from __future__ import annotations

from zonda.text.dialects.tagged import between

DIALECT = between("apertus", "<|tools_prefix|>", "<|tools_suffix|>", words=None, ends=True)
