"""The OpenAPI document and its page, made from the endpoints and the schema types, so that they cannot be wrong."""
from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec

from zonda import __version__
from zonda.server.endpoint import Endpoint
from zonda.server.schema import ErrorReply

TITLE = "Zonda"
_PARAMETER = re.compile(r"{(\w+)}")
_REF = "#/components/schemas/{name}"
_STYLE = ("body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
          "code{font-family:ui-monospace,monospace}table{border-collapse:collapse;width:100%}"
          "td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #8884}"
          ":root{color-scheme:light dark}")


_KEYS = {"bearer": {"type": "http", "scheme": "bearer"},
         "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}


def document(endpoints: Sequence[Endpoint], *, keyed: bool = False) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the routes; `keyed` says that callers need a key."""
    types = [kind for each in endpoints for kind in (each.body, each.reply, each.also, each.events, each.error,
                                           *each.failures.values())]
    names = [kind for kind in dict.fromkeys([*types, ErrorReply]) if kind]
    refs, components = msgspec.json.schema_components(names, ref_template=_REF)
    schemas = dict(zip(names, refs))
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.pattern, {})[each.method.lower()] = _operation(each, schemas)
    _link(paths)
    for kind in names:
        components.get(getattr(kind, "__name__", ""), {}).update(_either(kind))
    return {"openapi": "3.1.0", "info": {"title": TITLE, "version": __version__}, "paths": paths,
            "components": {"schemas": components, "securitySchemes": _KEYS},
            "security": [*([] if keyed else [{}]), *({name: []} for name in _KEYS)]}


def _link(paths: dict[str, dict[str, Any]]) -> None:
    """Tell which routes take the id of what a route has made."""
    for path, methods in paths.items():
        maker, found, _ = path.partition("/{id}")
        if found and "post" in paths.get(maker, {}):
            links = paths[maker]["post"]["responses"]["200"].setdefault("links", {})
            for operation in methods.values():
                name = operation["operationId"]
                links[name] = {"operationId": name, "parameters": {"id": "$response.body#/id"}}


def _either(kind: Any) -> dict[str, Any]:
    """What a schema says of fields one of which must be given."""
    fields = getattr(kind, "EITHER", ())
    given = [{"required": [each], "properties": {each: {"not": {"type": "null"}}}} for each in fields]
    return {"anyOf": given} if given else {}


def _operation(each: Endpoint, schemas: dict[type, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": _name(each), "summary": each.summary, "responses": {
        "200": {"description": "Success", "content": _content(each, schemas)},
        **{str(status): _answer("Failure", {"anyOf": [schemas[kind], schemas[each.error]]})
           for status, kind in each.failures.items()},
        "default": _answer("An error", schemas[each.error])}}
    if each.body:
        body = {"application/json": {"schema": schemas[each.body]}}
        operation["requestBody"] = {"required": True, "content": body}
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                  for name in _PARAMETER.findall(each.pattern)] + _query(each.query)
    return operation | ({"parameters": parameters} if parameters else {}) | ({"security": []} if each.open else {})


def _query(kind: type | None) -> list[dict[str, Any]]:
    if kind is None:
        return []
    fields = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} | (
        {"style": "deepObject"} if schema.get("type") == "object" else {}) for name, schema in fields.items()]


def _content(each: Endpoint, schemas: dict[type, Any]) -> dict[str, Any]:
    replies = [schemas[kind] for kind in (each.reply, each.also) if kind]
    schema = {"anyOf": replies} if len(replies) > 1 else replies[0] if replies else None
    content: dict[str, Any] = {each.media: {"schema": schema} if schema else {}}
    if each.events:
        content["text/event-stream"] = {"schema": _event(schemas[each.events], schemas[each.error])}
    return content


def _event(chunk: Any, error: Any) -> dict[str, Any]:
    """A server-sent event: a chunk, an error, or the word that ends the stream."""
    value = {"contentMediaType": "application/json", "contentSchema": {"anyOf": [chunk, error]}}
    data = {"type": "string", "anyOf": [{"const": "[DONE]"}, value]}
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _answer(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _name(each: Endpoint) -> str:
    return "_".join([each.method.lower(), *re.findall(r"\w+", each.pattern)])


def page(endpoints: Sequence[Endpoint]) -> str:
    """The document for people: plain HTML."""
    whole = document(endpoints)
    routes = "".join(f"<tr><td><code>{each.method}</code></td><td><code>{escape(each.pattern)}</code></td>"
                     f"<td>{escape(each.summary)}</td></tr>" for each in endpoints)
    schemas = "".join(_section(name, schema) for name, schema in sorted(whole["components"]["schemas"].items()))
    return (f"<!doctype html><html lang=en><meta charset=utf-8><title>{TITLE}</title><style>{_STYLE}</style>"
            f"<h1>{TITLE} {__version__}</h1><p>For machines: <a href=/openapi.json>/openapi.json</a>.</p>"
            f"<table>{routes}</table>{schemas}</html>")


def _section(name: str, schema: dict[str, Any]) -> str:
    rows = "".join(f"<tr><td><code>{escape(field)}</code></td><td>{_kind(value)}</td></tr>"
                   for field, value in schema.get("properties", {}).items())
    return f"<h2 id={name}>{name}</h2><p>{escape(schema.get('description', ''))}</p><table>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words, with a link where it has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href=#{name}>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    inner = f" of {_kind(schema['items'])}" if schema.get("items") else ""
    return f"{schema.get('type', 'anything')}{inner}{_limits(schema)}"


def _limits(schema: dict[str, Any]) -> str:
    words = {"minimum": "from", "maximum": "to", "minLength": "at least", "maxLength": "at most",
             "minItems": "at least", "maxItems": "at most"}
    said = [f"{word} {schema[name]}" for name, word in words.items() if name in schema]
    return f" {' '.join(said)}" if said else ""
