"""The shapes of tools in the Responses API: as they are given, and as responses repeat them."""
from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from zonda.server.chat_schema import MAX_TOOLS


class CustomFormat(Struct, kw_only=True, omit_defaults=True):
    """What the input of a custom tool must look like."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class Tool(Struct, kw_only=True):
    """A tool, or a namespace of some; functions may also come nested, as chat completions have them."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    function: dict[str, Any] | None = None
    format: CustomFormat | None = None
    environment: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None


class Choice(Struct, kw_only=True, omit_defaults=True):
    """Which tool must be called, or which may be."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None


class FunctionTool(Struct, tag="function", tag_field="type", kw_only=True):
    """A function that could be called."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class CustomTool(Struct, tag="custom", tag_field="type", kw_only=True, omit_defaults=True):
    """A tool that could be called with any text."""

    name: str
    description: str | None = None
    format: CustomFormat


class NamespaceTool(Struct, tag="namespace", tag_field="type", kw_only=True):
    """Tools that belong together; two namespaces may have tools of the same name."""

    name: str
    description: str | None
    tools: list[FunctionTool | CustomTool]
