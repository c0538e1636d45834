"""Tools in conversations whose template knows of none."""
from __future__ import annotations

from typing import Any

from zonda.text.template import ChatTemplate

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "call_12345", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
TURNS: list[dict[str, Any]] = [{"role": "user", "content": "How is it?"}, {"role": "assistant", "tool_calls": [CALL]},
                               {"role": "tool", "tool_call_id": "call_12345", "content": "sun"}]


def test_a_template_without_tools_is_told_of_them_by_the_system() -> None:
    text = ChatTemplate(CHATML).render([{"role": "system", "content": "Be brief."}, *TURNS[:1]], tools=TOOLS)
    assert text.startswith("<|system|>Be brief.\n\nYou can call functions")
    assert '{"type": "function", "function": {"name": "weather"' in text and text.endswith("<|user|>How is it?")
    assert ChatTemplate(CHATML).render(TURNS[:1], tools=TOOLS).startswith("<|system|>You can call")


def test_calls_and_results_become_text() -> None:
    text = ChatTemplate(CHATML).render(TURNS)
    assert text == ('<|user|>How is it?<|assistant|><tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
                    "</tool_call><|user|><tool_response>\nsun\n</tool_response>")


def test_a_template_with_tools_is_left_to_itself() -> None:
    source = CHATML + "{% if tools %}{{ tools | length }}{% endif %}"
    assert ChatTemplate(source).render(TURNS[:1], tools=TOOLS) == "<|user|>How is it?1"


def test_ids_become_as_short_as_a_template_wants_them() -> None:
    source = ("{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
              "{{ raise_exception('ids must have length 9') }}{% endif %}{{ c.id }} {% endfor %}"
              "{% if m.role == 'tool' %}{{ m.tool_call_id }}{% endif %}{% endfor %}")
    first, second = ChatTemplate(source).render(TURNS).split()
    assert first == second and len(first) == 9 and first.isalnum()
