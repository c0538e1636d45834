"""Nemotron Nano 2: `<TOOLCALL>[{...}]</TOOLCALL>`."""
from __future__ import annotations

from zonda.text.dialects.tagged import between

DIALECT = between("nemotron", "<TOOLCALL>", "</TOOLCALL>")
