"""Zonda: a fast inference engine in Python.

    from zonda import LLM

    with LLM("smollm2") as llm:
        print(llm.chat("Why is the sky blue?").text)
"""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zonda.completion import Call, Choice, Completion
    from zonda.errors import (
        Closed,
        ContextExceeded,
        DeviceLost,
        InvalidModel,
        InvalidRequest,
        ModelNotFound,
        OutOfMemory,
        Overloaded,
        Unsupported,
        ZondaError,
    )
    from zonda.sdk import LLM, AsyncLLM
    from zonda.tools import Tool, ToolRun, tool
    from zonda.types import Chunk, Grammar, Logprob, Sampling, Usage

__version__ = "0.1.0"
__all__ = [
    "LLM", "AsyncLLM", "Call", "Choice", "Chunk", "Closed", "Completion", "ContextExceeded", "DeviceLost", "Grammar",
    "InvalidModel", "InvalidRequest", "Logprob", "ModelNotFound", "OutOfMemory", "Overloaded", "Sampling", "Tool",
    "ToolRun", "Unsupported", "Usage", "ZondaError", "__version__", "tool",
]
_HOMES = {"LLM": "sdk", "AsyncLLM": "sdk", "Call": "completion", "Choice": "completion", "Completion": "completion",
          "Chunk": "types", "Grammar": "types", "Logprob": "types", "Sampling": "types", "Usage": "types",
          "Tool": "tools", "ToolRun": "tools", "tool": "tools"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'zonda' has no attribute {name!r}")
    return getattr(import_module(f"zonda.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
