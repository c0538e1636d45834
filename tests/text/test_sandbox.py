"""Chat templates that nobody should trust: none gets out, and none takes much time or room."""
from __future__ import annotations

import tracemalloc

import pytest

from zonda.errors import InvalidModel, InvalidRequest
from zonda.text import sandbox
from zonda.text.template import ChatTemplate

HI = [{"role": "user", "content": "hi"}]
BIG = "{% set x = 'a' * 1000000 %}"
GROW = "{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}%s"

COSTLY = {
    "a long loop": "{% for i in range(10**9) %}x{% endfor %}",
    "loops in a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that skip": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "loops that call themselves": "{% for i in [0] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "macros that call themselves twice":
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "macros without end": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a text many times": "{{ 'a' * 10**9 }}",
    "a text many times, the other way": "{{ 10**9 * 'a' }}",
    "a list many times": "{{ [0] * 10**9 }}",
    "a text that doubles": GROW % ("'a'", "ns.x + ns.x", ""),
    "a joined text that doubles": GROW % ("'a'", "ns.x ~ ns.x", ""),
    "a list that doubles": GROW % ("[1]", "ns.x + ns.x", ""),
    "a list of itself": GROW % ("[1]", "[ns.x, ns.x]", "{{ ns.x }}"),
    "a pair of itself": GROW % ("[1]", "(ns.x, ns.x)", "{{ ns.x | string }}"),
    "a mapping of itself": GROW % ("1", "{'a': ns.x, 'b': ns.x}", "{{ ns.x | tojson }}"),
    "a mapping that is called": GROW % ("1", "dict(a=ns.x, b=ns.x)", "{{ ns.x | tojson }}"),
    "a list of itself by a filter":
        GROW % ("[1]", "([none] * 1000) | map('default', ns.x, true) | list", "{{ ns.x }}"),
    "a list of itself by an attribute":
        "{% set ns = namespace(x=1) %}{% for i in range(20) %}{% set d = {'k': ns.x} %}"
        "{% set ns.x = ([d] * 1000) | map(attribute='k') | list %}{% endfor %}{{ ns.x }}",
    "a block that doubles":
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
        "{% set ns.x = y %}{% endfor %}",
    "a number that is squared": GROW % ("3", "ns.x * ns.x", "{{ ns.x }}"),
    "a power": "{{ 10 ** (10 ** 5) }}",
    "a centred text": "{{ 'a' | center(10**9) }}",
    "a filtered block": "{% filter center(10**9) %}a{% endfilter %}",
    "a filled text": "{{ 'a'.ljust(10**9) }}{{ 'a'.zfill(10**9) }}",
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a width that is told": "{{ '%*d' % (10**9, 1) }}",
    "a wide format": "{{ '{:1000000000}'.format(1) }}",
    "a format in a format": "{{ '{:{}}'.format(1, 10**9) }}",
    "a wide filter": "{{ '%1000000000d' | format(1) }}",
    "a format of many": BIG + "{{ ('{0}' * 100000).format(x) }}",
    "a format of many by name": BIG + "{{ ('%(a)s' * 100000) % {'a': x} }}",
    "a replaced text": BIG + "{{ x.replace('a', x) }}",
    "a replacement between all": BIG + "{{ x | replace('', x) }}",
    "a long separator": BIG + "{{ x.join(range(100000) | map('string')) }}",
    "a long separator in a filter": BIG + "{{ range(100000) | join(d=x) }}",
    "a deep indent": BIG + "{{ ('\\n' * 100000) | indent(x) }}",
    "an indented object": "{{ [1] | tojson(indent=10**9) }}",
    "a deep object":
        "{% set ns = namespace(x=[0] * 100000) %}{% for i in range(300) %}{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x | tojson(indent=16) }}",
    "a filled batch": "{{ [1] | batch(10**9, 0) | list }}",
    "many slices": "{{ [1] | slice(10**9) | list }}",
    "a precise number": "{{ 1.5 | round(10**9, 'ceil') }}",
    "a sum of lists": "{{ (['a'] * 100000) | map('list') | sum(start=[]) }}",
    "much output": BIG + "{% for i in range(99999) %}{{ x }}{% endfor %}",
    "much output in a macro":
        BIG + "{% macro m() %}{% for i in range(99999) %}{{ [x] }}{% endfor %}{% endmacro %}{{ m() }}",
    "a hoard of texts":
        BIG + "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [x ~ i] %}{% endfor %}",
    "a hoard of slices":
        BIG + "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [x[1:]] %}{% endfor %}",
    "a long search":
        "{% set x = range(9999) | list %}{% for i in range(99999) %}{% if -1 in x %}{% endif %}{% endfor %}",
    "a long format of time": "{{ strftime_now('%Y' * 100000) }}",
}


@pytest.mark.parametrize("source", COSTLY.values(), ids=COSTLY)
def test_a_costly_template_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(sandbox, "STEPS", 20_000)
    with pytest.raises(InvalidModel):
        ChatTemplate(source).render(HI)


def test_a_template_is_stopped_by_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.05)
    with pytest.raises(InvalidModel, match="line 1 of the chat template was stopped: it takes more than"):
        ChatTemplate(COSTLY["loops in a loop"]).render(HI)


@pytest.mark.parametrize("name", ["a joined text that doubles", "a hoard of texts", "much output in a macro",
                                  "a replaced text", "a list many times", "a list of itself"])
def test_a_template_takes_little_room(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModel, match="it makes more than"):
            ChatTemplate(COSTLY[name]).render(HI)
        assert tracemalloc.get_traced_memory()[1] < 4 * sandbox.CHARACTERS
    finally:
        tracemalloc.stop()


CLOSED = {
    "a class": "{{ ''.__class__.__mro__ }}",
    "a class by a filter": "{{ (''|attr('__class__')).__mro__ }}",
    "a class by an index": "{{ ''['__class__']['__mro__'] }}",
    "globals": "{{ raise_exception['__globals__'].sys }}",
    "globals of the time": "{{ strftime_now.__globals__.x }}",
    "the template": "{{ self.__init__.__globals__ }}",
    "a counter": "{{ cycler.__init__.__globals__ }}",
    "a namespace": "{{ namespace.__init__.__globals__.x }}",
    "a loop": "{% for i in [1] %}{{ loop.__class__.x }}{% endfor %}",
    "a macro": "{% macro m() %}{% endmacro %}{{ m._func.x }}",
    "a format": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "a format of a mapping": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "encoded text": "{{ 'a'.encode() }}",
    "a list that grows": "{{ messages.append(1) }}",
    "a message that changes": "{{ messages[0].update({'role': 'x'}) }}",
    "a namespace that reaches in": "{{ namespace(__class__=1) }}",
    "a namespace that is written into": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "another file": "{% include '/etc/passwd' %}",
    "a module": "{% import 'os' as os %}",
    "a parent": "{% extends 'x' %}",
    "filler text": "{{ lipsum(n=5) }}",
    "slow filters": "{{ 'a' | wordwrap(1) }}",
}


@pytest.mark.parametrize("source", CLOSED.values(), ids=CLOSED)
def test_a_template_sees_nothing_but_its_values(source: str) -> None:
    with pytest.raises(InvalidModel):
        ChatTemplate(source).render(HI)


def test_a_namespace_does_not_show_what_it_holds() -> None:
    source = "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}{{ [ns] }}{{ ns ~ '' }}"
    assert ChatTemplate(source).render(HI) == "<namespace>[<namespace>]<namespace>"


def test_the_callers_messages_stay_as_they_are() -> None:
    given = [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]
    ChatTemplate("{{ messages[0].content }}").render(given)
    assert given == [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]


def test_a_long_conversation_is_no_costly_template() -> None:
    long = [{"role": role, "content": "word " * 2000} for _ in range(500) for role in ("user", "assistant")]
    source = ("{% for m in messages %}{% set c = m.content.strip().split('</think>')[-1] | trim %}"
              "{{ '<' ~ m.role ~ '>' + c + '\n' }}{% endfor %}")
    assert len(ChatTemplate(source).render(long)) > 500 * 2 * 9999


def test_a_request_that_is_too_deep_is_the_requests_fault() -> None:
    deep: object = "a"
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested"):
        ChatTemplate("a").render([{"role": "user", "content": deep}])
