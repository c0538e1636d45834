"""The scripted server that clients are tried against: what it says fits what it is asked."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import openai
import pytest

sys.path.append(str(Path(__file__).parents[1] / "clients"))

from actor import KEY, acting

TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def test_it_calls_a_tool_tells_the_result_and_fails_where_it_is_to() -> None:
    with acting() as url, openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        def ask(said: str, *more: Any) -> Any:
            messages: Any = [{"role": "user", "content": said}, *more]
            return client.chat.completions.create(model="scripted", messages=messages, tools=[TOOL]).choices[0].message

        asked = ask("How is the weather?")
        (call,) = asked.tool_calls
        assert call.function.arguments == '{"city":"Paris"}'
        told = ask("How is the weather?", asked, {"role": "tool", "tool_call_id": call.id, "content": "fine"})
        assert told.content == "It is fine."
        with pytest.raises(openai.RateLimitError):
            ask("busy")
        with pytest.raises(openai.InternalServerError):
            ask("count and fails")
