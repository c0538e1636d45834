"""The form that a request wants its answer to have: the fields of several dialects, and the grammar they mean."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from zonda.errors import InvalidRequest
from zonda.server.decode import missing
from zonda.types import Grammar

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM
    from zonda.server.call import Call

Wanted = tuple[str, Grammar]
"""The field that says what is wanted, and the grammar."""
ANY_OBJECT = '{"type": "object"}'


class JsonSchema(Struct, kw_only=True):
    """A named JSON schema. It is always enforced, `strict` or not; without a schema any JSON value will do."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Struct, kw_only=True):
    """The form that the answer must have; a `json_object` may bring a `schema`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None


class GrammarField(Struct, kw_only=True):
    """A grammar that the answer must follow."""

    type: Literal["regex", "json_schema", "llguidance", "lark"]
    value: str | dict[str, Any]


class StructuredOutputs(Struct, kw_only=True):
    """One of several forms that the answer must have."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class FormatFields(Struct, kw_only=True):
    """The fields that say what an answer must look like; at most one of them may."""

    response_format: ResponseFormat | None = None
    grammar: GrammarField | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None


def wanted_form(body: FormatFields, *own: Wanted) -> Wanted | tuple[str, None]:
    """What the request wants its answer to look like, None for any text, and the field that says it.

    `own` is what fields of the request's own protocol say.
    """
    found = [*own, *_response_format(body.response_format), *_grammar(body.grammar),
             *_structured(body.structured_outputs), *_guided(body)]
    if len(found) > 1:
        (first, _), (second, _) = found[:2]
        raise InvalidRequest(f"`{first}` and `{second}` exclude each other", param=second)
    return found[0] if found else ("tools", None)


async def compiled(call: Call, llm: AsyncLLM, grammar: Grammar | None, field: str) -> Grammar | None:
    """The grammar, compiled beside the event loop, in turn for API keys; errors name the field that it comes from."""
    try:
        await llm.compile(grammar, call.client)
    except InvalidRequest as error:
        if error.param == "grammar":
            error.param = field
        raise
    return grammar


def _response_format(given: ResponseFormat | None) -> Iterator[Wanted]:
    if given is None or given.type == "text":
        return
    if given.type == "json_object":
        source = ANY_OBJECT if given.schema is None else _text(given.schema, "response_format.schema")
        yield "response_format.schema" if given.schema else "response_format", Grammar("json_schema", source)
        return
    if given.json_schema is None:
        raise missing("response_format.json_schema")
    field = "response_format.json_schema.schema"
    yield field, Grammar("json_schema", _text(given.json_schema.schema or {}, field))


def _grammar(given: GrammarField | None) -> Iterator[Wanted]:
    if given:
        if given.type in {"regex", "lark"} and not isinstance(given.value, str):
            raise InvalidRequest(f"`grammar.value` is not a text, as a {given.type} is", param="grammar.value")
        yield "grammar.value", Grammar(given.type, _text(given.value, "grammar.value"))


def _structured(given: StructuredOutputs | None) -> Iterator[Wanted]:
    if given:
        yield from _named("structured_outputs.", given.json, given.regex, given.choice, given.grammar)
        if given.json_object:
            yield "structured_outputs.json_object", Grammar("json_schema", ANY_OBJECT)


def _guided(body: FormatFields) -> Iterator[Wanted]:
    return _named("guided_", body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar)


def _named(prefix: str, schema: str | dict[str, Any] | None, regex: str | None, choice: list[str] | None,
           lark: str | None) -> Iterator[Wanted]:
    if schema is not None:
        yield f"{prefix}json", Grammar("json_schema", _text(schema, f"{prefix}json"))
    if regex is not None:
        yield f"{prefix}regex", Grammar("regex", regex)
    if choice is not None:
        yield f"{prefix}choice", Grammar("choice", _text(choice, f"{prefix}choice"))
    if lark is not None:
        yield f"{prefix}grammar", Grammar("lark", lark)


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        raise InvalidRequest(f"`{field}` is nested too deeply", param=field) from None
