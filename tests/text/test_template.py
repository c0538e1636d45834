"""Chat templates: the dialect they are written in, and conversations that they do not take as they are."""
from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template
from vocabularies import KEY

from zonda.errors import InvalidModel, InvalidRequest, Unsupported
from zonda.text.template import LONGEST_SOURCE, ChatTemplate
from zonda.text.tokenizer import Tokenizer

HI = [{"role": "user", "content": "hi"}]
CHATML = ("{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
          "{% if add_generation_prompt %}<|assistant|>{% endif %}")
ALTERNATING = ("{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
               "{{ raise_exception('roles must alternate') }}{% endif %}"
               "[{{ message.role }}]{{ message.content }}{% endfor %}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ALTERNATING
FIRST = ("{% for message in messages %}{% if message.role == 'system' and not loop.first %}"
         "{{ raise_exception('the system speaks first') }}{% endif %}[{{ message.role }}]{{ message.content }}"
         "{% endfor %}")
PARTS = ("{% for message in messages %}{% for part in message.content %}"
         "<{{ part.type }}>{{ part.text }}{% endfor %}{% endfor %}")
EITHER = ("{% for m in messages %}{% if m['content'] is string %}={{ m['content'] }}{% else %}"
          "{% for part in m['content'] %}+{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}")


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


DIALECT = {
    "blocks are trimmed": "a\n  {% if true %}\n  b\n  {% endif %}\nc",
    "loops break and continue":
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "what the model wrote is marked": "x{% generation %}y{{ messages[0].content }}{% endgeneration %}z",
    "marked text keeps its variables":
        "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}",
    "JSON is not escaped": "{{ {'b': '<é>&', 'a': [1, 2.5, none, true]} | tojson }}",
    "JSON takes options": "{{ {'b': 1, 'a': ['é']} | tojson(indent=2, sort_keys=true, ensure_ascii=true) }}"
                          "{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}",
    "strings have methods":
        "{{ ' a-b '.strip().split('-')[1].upper() }}{{ 'x'.startswith('x') }}{{ 'aXb'.replace('X', '') }}",
    "strings are formatted": "{{ '{} {x:>4}'.format(1, x=2) }}{{ '%s-%03d' % ('a', 7) }}{{ '%s' | format('b') }}",
    "slices go backwards": "{{ messages[::-1][0].content[1:] }}{{ [1, 2, 3][-1] }}",
    "namespaces carry values":
        "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "macros call":
        "{% macro twice(x, y='!') %}{{ x }}{{ x }}{{ y }}{% endmacro %}{{ twice('a') }}{{ twice('b', y='?') }}",
    "blocks are called": "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}",
    "blocks are filtered": "{% filter upper %}a{% endfilter %}{% set x %}b{% endset %}{{ x }}",
    "mappings are walked":
        "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}{{ dict(a=1).get('b', 3) }}",
    "filters select":
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}",
    "loops know their place": "{% for x in 'ab' %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }}{% endfor %}",
    "loops nest": "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is iterable else x }};{% endfor %}",
    "texts are joined": "{{ 'a' ~ 1 ~ none ~ messages[0].role }}{{ ['a', 'b'] | join(', ') }}{{ 'a' * 3 + 'b' }}",
    "what is not there is empty":
        "[{{ nothing }}{{ messages[0].nothing }}{{ nothing | default('d') }}]{{ nothing is defined }}",
    "tests tell kinds":
        "{{ 'a' is string }}{{ {} is mapping }}{{ [] is sequence }}{{ none is none }}{{ true is true }}",
    "tools are none": "{{ tools is none }}{{ documents is none }}{{ tools is not none }}",
    "the tokens are there": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}",
    "markup stays text": "{{ '<' | safe ~ '<' }}{{ '<&' | escape }}",
    "arithmetic works": "{{ 7 // 2 }}{{ 7 % 3 }}{{ 2 ** 10 }}{{ 1 / 2 }}{{ -3 | abs }}{{ [1, 2] + [3] }}",
    "counters count":
        "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{% set j = joiner(',') %}{{ j() }}x{{ j() }}y",
}


@pytest.mark.parametrize("source", DIALECT.values(), ids=DIALECT)
def test_templates_render_as_in_transformers(source: str) -> None:
    theirs = render_jinja_template([HI], chat_template=source, add_generation_prompt=True, bos_token="<s>",
                                   eos_token="</s>")[0][0]
    assert ChatTemplate(source, bos="<s>", eos="</s>").render(HI) == theirs


@pytest.mark.parametrize(("given", "text"), [
    ({}, "//"), ({"enable_thinking": False}, "False//"), ({"reasoning_effort": "low"}, "/low/low")])
def test_variables_are_there_when_they_are_set(given: dict[str, Any], text: str) -> None:
    template = ChatTemplate("{{ enable_thinking }}/{{ reasoning_effort }}/{{ reasoning_strength }}")
    assert template.render(HI, **given) == text


def test_the_generation_prompt_can_be_left_out() -> None:
    assert ChatTemplate(CHATML).render(HI, add_generation_prompt=False) == "<|user|>hi\n"


@pytest.mark.parametrize("name", ["messages", "bos_token", "range", "raise_exception"])
def test_what_is_not_the_callers_to_set_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        ChatTemplate(CHATML).render(HI, **{name: "x"})


@pytest.mark.parametrize("tools", [5, "f", ["f"], {"f": 1}])
def test_tools_of_another_shape_are_refused(tools: Any) -> None:
    with pytest.raises(InvalidRequest, match="tools"):
        ChatTemplate(CHATML).render(HI, tools=tools)


def test_the_time_is_told_as_the_template_asks() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}{{ date_string }}", now=lambda: datetime(2025, 1, 2))
    assert template.render(HI) == "02 Jan 2025"
    before, told, after = (datetime.now(UTC).strftime("%d %b %Y"), ChatTemplate("{{ date_string }}").render(HI),
                           datetime.now(UTC).strftime("%d %b %Y"))
    assert told in {before, after}


def test_another_template_is_taken_for_tools() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "{{ tools[0].function.name }}"})
    assert template.render(HI) == "plain"
    assert template.render(HI, tools=[{"type": "function", "function": {"name": "f"}}]) == "f"


@pytest.mark.parametrize(("source", "messages", "text"), [
    (CHATML, said(("developer", "a"), ("user", "b")), "<|system|>a\n<|user|>b\n<|assistant|>"),
    ("{# developer #}" + CHATML, said(("developer", "a")), "<|developer|>a\n<|assistant|>"),
    (CHATML, said(("user", "a"), ("user", "b")), "<|user|>a\n<|user|>b\n<|assistant|>"),
    (ALTERNATING, said(("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")),
     "[user]a\n\nb[assistant]c[user]d"),
    (NO_SYSTEM, said(("system", "a"), ("user", "b")), "[user]a\n\nb"),
    (NO_SYSTEM, said(("developer", "a"), ("user", "b"), ("user", "c")), "[user]a\n\nb\n\nc"),
    (NO_SYSTEM, said(("system", "a"), ("system", "b"), ("user", "c")), "[user]a\n\nb\n\nc"),
    (NO_SYSTEM, said(("system", "a"),), "[user]a"),
    (NO_SYSTEM, said(("user", "a"), ("assistant", "b"), ("system", "c")), "[user]a[assistant]b[user]c"),
    (FIRST, said(("system", "a"), ("user", "b"), ("system", "c"), ("assistant", "d")),
     "[system]a[user]b[user]c[assistant]d"),
    (FIRST, said(("system", "a"), ("developer", "b"), ("user", "c"), ("system", "d")), "[system]a\n\nb[user]c\n\nd"),
    (CHATML, said(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])),
     "<|user|>a\nb\n<|assistant|>"),
    (PARTS, said(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])), "<text>a<text>b"),
    (PARTS, said(("user", "a")), "<text>a"),
    (EITHER, said(("user", "a"), ("user", [{"type": "text", "text": "b"}])), "=a+b"),
    ("{% for m in messages %}{{ m.role + m.content }}{% endfor %}", said(("user", "a"), ("assistant", None)),
     "useraassistant"),
    ("{% for m in messages %}{{ m.content is none }}{% endfor %}", said(("assistant", None)), "True"),
])
def test_a_conversation_is_given_in_a_form_that_the_template_takes(source: str, messages: list[dict[str, Any]],
                                                                   text: str) -> None:
    assert ChatTemplate(source).render(messages) == text


@pytest.mark.parametrize(("source", "text"), [
    ("{{ messages[0].tool_calls[0].function.arguments.a }}", "1"),
    ("{{ messages[0].tool_calls[0].function.arguments | tojson }}", '{"a": 1}'),
    ("{{ 'x' + messages[0].tool_calls[0].function.arguments }}", 'x{"a": 1}'),
])
@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_arguments_of_tool_calls_come_as_the_template_takes_them(source: str, text: str, arguments: Any) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    assert ChatTemplate(source).render([{"role": "assistant", "tool_calls": [call]}]) == text


@pytest.mark.parametrize("reads", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("given", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_reaches_a_template_by_whatever_name_it_has(reads: str, given: str) -> None:
    template = ChatTemplate(f"{{% for m in messages %}}{{{{ m.{reads} is defined }}}}{{{{ m.{reads} }}}}{{% endfor %}}")
    assert template.render([{"role": "assistant", "content": "a", given: "hm"}]) == "Truehm"
    assert template.render([{"role": "assistant", "content": "a"}]) == "False"


def test_reasoning_beside_content_is_said_where_a_template_takes_one_of_them_in_a_call() -> None:
    both = "m.tool_calls and m.thinking and m.content"
    template = ChatTemplate("{% set m = messages[0] %}{% if " + both + " %}{{ raise_exception('both') }}{% endif %}"
                            "{{ m.content }}/{{ m.thinking }}")
    message = {"role": "assistant", "content": "b", "reasoning_content": "a",
               "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}
    assert template.render([message]) == "a\n\nb/"
    assert template.render([message | {"content": ""}]) == "/a"


def test_arguments_that_are_no_object_stay_as_they_are() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{broken"}}
    template = ChatTemplate("{{ messages[0].tool_calls[0].function.arguments }}")
    assert template.render([{"role": "assistant", "tool_calls": [call]}]) == "{broken"


def test_calls_of_joined_messages_are_all_there() -> None:
    calls = [{"role": "assistant", "content": "", "tool_calls": [{"id": each}]} for each in "ab"]
    template = ChatTemplate(ALTERNATING + "{{ messages[1].tool_calls | map(attribute='id') | join }}")
    assert template.render([*HI, *calls]).endswith("ab")


def test_what_the_template_refuses_is_the_requests_fault_with_its_line() -> None:
    with pytest.raises(InvalidRequest, match=r"line 2 of the chat template refuses.*: only poems") as caught:
        ChatTemplate("a\n{{ raise_exception('only poems') }}").render(HI)
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_what_only_this_conversation_breaks_is_the_requests_fault() -> None:
    source = "{% for m in messages %}\n{% if m.role != 'user' %}\n{{ m.nothing.more }}{% endif %}\n{% endfor %}"
    with pytest.raises(InvalidRequest, match="line 3 of the chat template cannot render"):
        ChatTemplate(source).render(said(("assistant", "a")))


@pytest.mark.parametrize(("source", "says"), [
    ("a\n{% if %}", "line 2 of the chat template is broken"),
    ("{{ 'a' | nothing }}", "line 1 of the chat template is broken: No filter named 'nothing'"),
    ("a\n\n{{ nothing.more }}", "line 3 of the chat template is broken: 'nothing' is undefined"),
    ("{% include 'x' %}", "line 1 of the chat template is broken"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be compiled"),
    ("a" * (LONGEST_SOURCE + 1), "expected at most"),
])
def test_a_broken_template_is_the_models_fault_with_its_line(source: str, says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        ChatTemplate(source).render(HI)


@pytest.mark.parametrize("source", [{}, {"default": 5}, 5])
def test_a_template_that_is_no_text_is_the_models_fault(source: Any) -> None:
    with pytest.raises(InvalidModel):
        ChatTemplate(source)


@pytest.mark.parametrize("messages", [
    5, "hi", {"role": "user"}, [5], ["hi"], [{}], [{"role": 5}], [{"role": "user", "content": object()}],
    [{"role": "user", "content": reduce(lambda inner, _: [inner], range(80), [])}]])
def test_messages_of_another_shape_are_refused(messages: Any) -> None:
    with pytest.raises(InvalidRequest):
        ChatTemplate(CHATML).render(messages)


@pytest.mark.parametrize("role", ["robot", "function", "User", "", "r" * 1000])
def test_an_unknown_role_is_refused_with_its_place_and_those_that_there_are(role: str) -> None:
    with pytest.raises(InvalidRequest, match="expected one of system, developer, user, assistant, tool") as caught:
        ChatTemplate(CHATML).render(said(("user", "a"), (role, "b")))
    assert caught.value.param == "messages[1].role" and repr(role)[:30] in caught.value.message
    assert len(caught.value.message) < 100


def test_a_part_that_is_no_text_is_refused_with_its_place() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(Unsupported, match=r"messages\[0\]\.content\[1\].*image_url"):
        ChatTemplate(CHATML).render(said(("user", parts)))


@pytest.mark.parametrize(("source", "pre", "ids"), [
    ("{{ bos_token }}{{ messages[0].content }}", "llama-bpe", [3, 2]),
    ("{{ messages[0].content }}", "llama-bpe", [3, 2]),
    ("{{ bos_token }}{{ messages[0].content }}", "gpt-2", [3, 2]),
    ("{{ messages[0].content }}", "gpt-2", [2]),
    ("{{ messages[0].content }}{{ eos_token }}", "llama-bpe", [3, 2, 4]),
])
def test_a_rendered_chat_has_bos_once_where_the_tokenizer_or_the_template_wants_it(source: str, pre: str,
                                                                                   ids: list[int]) -> None:
    tokenizer = Tokenizer.from_gguf({
        KEY + "model": "gpt2", KEY + "pre": pre, KEY + "tokens": ["a", "b", "ab", "<s>", "</s>"],
        KEY + "merges": ["a b"], KEY + "token_type": [1, 1, 1, 3, 3], KEY + "bos_token_id": 3, KEY + "eos_token_id": 4})
    template = ChatTemplate(source, bos=tokenizer.bos_token, eos=tokenizer.eos_token)
    assert tokenizer.encode_chat(template.render(said(("user", "ab")))) == ids
