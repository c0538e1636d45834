"""From what the Responses API is asked to a turn of a conversation: items, instructions, tools, the answer's form."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from zonda.errors import InvalidRequest, Unsupported
from zonda.server import custom_tools
from zonda.server.decode import check_depth, missing, needed, no_text
from zonda.server.formats import ANY_OBJECT, Wanted, wanted_form
from zonda.server.not_offered import check_offered
from zonda.server.responses_actions import ActionCall, arguments_of
from zonda.server.responses_hosted import hosted
from zonda.server.responses_schema import (
    Compaction,
    ContextFields,
    CustomCall,
    CustomCallOutput,
    FunctionCall,
    FunctionCallOutput,
    InputItem,
    InputPart,
    InputText,
    Item,
    Message,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Refusal,
    SummaryText,
)
from zonda.server.responses_tools import qualified
from zonda.server.responses_writer import unseal
from zonda.server.thinking import told
from zonda.types import Grammar

Role = Literal["user", "assistant", "system", "developer"]
ROLES = ("user", "assistant", "system", "developer")
MEDIA = frozenset({"input_image", "image_url", "image", "input_audio", "audio_url", "input_file", "file", "input_video",
                   "computer_screenshot"})
TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
SUMMARY = "Summary of the conversation so far:\n\n"
FORMAT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def items_of(body: ContextFields, name: Callable[[str], str], find: Callable[[str], Item | None],
             before: Sequence[Item]) -> list[Item]:
    """The input as items, each with an id: its own, or one that `name` makes; `find` looks up what is referred to.

    Raises for the output of a call that is nowhere in front of it.
    """
    if body.input is None:
        if body.previous_response_id is not None or body.conversation is not None:
            return []
        raise missing("input")
    if isinstance(body.input, str):
        return [Message(id=name("msg"), role="user", content=[InputText(body.input)])]
    called = {item.call_id for item in before if isinstance(item, FunctionCall | CustomCall | ActionCall)}
    found: list[Item] = []
    for index, each in enumerate(body.input[:-1] if compacts(body) else body.input):
        found += (items := read(each, place := f"input[{index}]", name, find))
        called |= {item.call_id for item in items if isinstance(item, FunctionCall | CustomCall | ActionCall)}
        for item in items:
            if isinstance(item, FunctionCallOutput | CustomCallOutput) and item.call_id not in called:
                raise InvalidRequest(f"`{place}` is the output of a call that is not there", param=f"{place}.call_id",
                                     hint="send the call before it, or go on from the response that made it")
    return found


def read(given: InputItem, place: str, name: Callable[[str], str], find: Callable[[str], Item | None]) -> list[Item]:
    """What an item that was given stands for; `place` is where."""
    found = hosted(given, place, name)
    return [_item(given, place, name, find)] if found is None else found


def compacts(body: ContextFields) -> bool:
    """Whether the last item of the input asks for what stands for the conversation so far."""
    return isinstance(body.input, list) and bool(body.input) and body.input[-1].type == "compaction_trigger"


def _item(given: InputItem, place: str, name: Callable[[str], str], find: Callable[[str], Item | None]) -> Item:
    match given.type:
        case "message":
            return _message(given, place, name)
        case None if given.role is not None:
            return _message(given, place, name)
        case "function_call":
            return FunctionCall(id=given.id or name("fc"), call_id=needed(given, "call_id", place),
                                name=needed(given, "name", place), namespace=given.namespace or UNSET,
                                arguments=needed(given, "arguments", place))
        case "function_call_output":
            return FunctionCallOutput(id=given.id or name("fco"), call_id=needed(given, "call_id", place),
                                      output=_output(given, place))
        case "custom_tool_call":
            return CustomCall(id=given.id or name("ctc"), call_id=needed(given, "call_id", place),
                              name=needed(given, "name", place), namespace=given.namespace or UNSET,
                              input=needed(given, "input", place))
        case "custom_tool_call_output":
            return CustomCallOutput(id=given.id or name("ctco"), call_id=needed(given, "call_id", place),
                                    output=_output(given, place))
        case "reasoning":
            return _reasoning(given, place, name)
        case "compaction":
            return _compaction(given, place, name)
        case "item_reference" | None if given.id:
            return _referred(given.id, place, find)
        case None:
            raise missing(f"{place}.type")
        case "compaction_trigger":
            raise InvalidRequest(f"`{place}` asks for a compaction, but is not the last item", param=place)
    raise Unsupported(f"`{place}.type` is not among the items that are understood", param=f"{place}.type",
                      hint="a message, reasoning, a call or its output, compaction, or item_reference")


def _referred(id: str, place: str, find: Callable[[str], Item | None]) -> Item:
    found = find(id)
    if found is None:
        raise InvalidRequest(f"`{place}.id` refers to an item that is not stored here", param=f"{place}.id",
                             hint="send the item itself")
    return found


def _message(given: InputItem, place: str, name: Callable[[str], str]) -> Message:
    if given.role not in ROLES:
        raise InvalidRequest(f"`{place}.role` is not known", param=f"{place}.role", hint=f"expected {', '.join(ROLES)}")
    if given.content is None:
        raise missing(f"{place}.content")
    make = OutputText if given.role == "assistant" else InputText
    content: list[Any]
    if isinstance(given.content, str):
        content = [make(given.content)]
    else:
        content = [Refusal(_text(part, f"{place}.content[{index}]")) if part.type == "refusal"
                   else make(_text(part, f"{place}.content[{index}]")) for index, part in enumerate(given.content)]
    return Message(id=given.id or name("msg"), role=given.role, phase=given.phase or UNSET,  # type: ignore[arg-type]
                   content=content)


def _text(part: InputPart, place: str) -> str:
    if part.type is None:
        raise missing(f"{place}.type")
    if part.type in MEDIA:
        raise no_text(part.type, place)
    if part.type not in TEXTS and part.type != "refusal":
        raise InvalidRequest(f"`{place}.type` is not known", param=f"{place}.type", hint="expected input_text")
    return needed(part, "refusal" if part.type == "refusal" else "text", place)


def _output(given: InputItem, place: str) -> str | list[InputText]:
    if given.output is None:
        raise missing(f"{place}.output")
    if isinstance(given.output, str):
        return given.output
    if isinstance(given.output, dict):
        raise InvalidRequest(f"`{place}.output` is neither a text nor a list of parts", param=f"{place}.output")
    return [InputText(_text(part, f"{place}.output[{index}]")) for index, part in enumerate(given.output)]


def _reasoning(given: InputItem, place: str, name: Callable[[str], str]) -> ReasoningItem:
    if isinstance(given.content, str):
        raise InvalidRequest(f"`{place}.content` is a text", param=f"{place}.content", hint="expected a list of parts")
    content, summary = ([_text(part, f"{place}.{field}[{index}]") for index, part in enumerate(parts or ())]
                        for field, parts in (("content", given.content), ("summary", given.summary)))
    return ReasoningItem(id=given.id or name("rs"), content=[*map(ReasoningText, content)],
                         summary=[*map(SummaryText, summary)], encrypted_content=given.encrypted_content)


def _compaction(given: InputItem, place: str, name: Callable[[str], str]) -> Compaction:
    sealed = needed(given, "encrypted_content", place)
    if not unseal(sealed):
        raise InvalidRequest(f"`{place}.encrypted_content` is nothing that this server has written",
                             param=f"{place}.encrypted_content", hint="send it back as /v1/responses/compact gave it")
    return Compaction(id=given.id or name("cmp"), encrypted_content=sealed)


def messages_of(items: Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """Items as messages of a chat: what the assistant thought, said and called in a row is one message."""
    found: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for item in _lasting(items):
        match item:
            case Message(role="assistant"):
                _said(found, _joined(item.content))
            case Compaction():
                _said(found, SUMMARY + unseal(item.encrypted_content))
            case Message():
                found.append({"role": item.role, "content": _joined(item.content)})
            case ReasoningItem():
                _assistant(found, fresh=True)["reasoning_content"] = _thought(item)
            case FunctionCall():
                _called(found, item.call_id, qualified(item.name, item.namespace or None), item.arguments)
            case ActionCall():
                _called(found, item.call_id, item.tool.name, arguments_of(type(item), item.action))
            case CustomCall():
                _called(found, item.call_id, qualified(item.name, item.namespace or None),
                        custom_tools.arguments(item.input))
            case FunctionCallOutput() | CustomCallOutput():
                found.append({"role": "tool", "tool_call_id": item.call_id, "content": _joined(item.output)})
    return [each for each in found if each["role"] != "assistant" or each["content"] or len(each) > 2]


def _lasting(items: Sequence[Item]) -> list[Item]:
    """The items without answers, calls and summaries that a later summary stands for."""
    last = max((place for place, item in enumerate(items) if isinstance(item, Compaction)), default=0)
    return [item for place, item in enumerate(items) if place >= last or is_told(item)]


def is_told(item: Item) -> bool:
    """Whether it is what the user or the system says, which stays when a conversation is compacted."""
    return isinstance(item, Message) and item.role != "assistant"


def _called(found: list[dict[str, Any]], id: str, name: str, arguments: str) -> None:
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    _assistant(found).setdefault("tool_calls", []).append(call)


def _assistant(found: list[dict[str, Any]], *, fresh: bool = False) -> dict[str, Any]:
    """The assistant's message at the end, or a new one."""
    last = found[-1] if found else None
    if last is None or last["role"] != "assistant" or (fresh and (last["content"] or "tool_calls" in last)):
        found.append({"role": "assistant", "content": ""})
    return found[-1]


def _said(found: list[dict[str, Any]], text: Any) -> None:
    message = _assistant(found)
    if message["content"] or "tool_calls" in message:
        found.append({"role": "assistant", "content": text})
    else:
        message["content"] = text


def _joined(content: str | Sequence[InputText | OutputText | Refusal]) -> Any:
    """A content as the template gets it: a lone text as such."""
    if isinstance(content, str):
        return content
    texts = [part.refusal if isinstance(part, Refusal) else part.text for part in content]
    if len(texts) == 1:
        return texts[0]
    return [{"type": "text", "text": text} for text in texts]


def _thought(item: ReasoningItem) -> str:
    told = "".join(part.text for part in item.content) or "\n".join(part.text for part in item.summary)
    return told or unseal(item.encrypted_content or "")


def form_of(body: ContextFields) -> Wanted | tuple[str, None]:
    """The form that the answer's text must have, and the field that says it."""
    wanted = body.text.format if body.text else None
    if wanted is None or wanted.type == "text":
        return wanted_form(body)
    if wanted.type == "json_object":
        return wanted_form(body, ("text.format", Grammar("json_schema", ANY_OBJECT)))
    if not wanted.name or not FORMAT_NAME.fullmatch(wanted.name):
        raise InvalidRequest("`text.format.name` is missing or not a name", param="text.format.name",
                             hint="expected up to 64 letters, digits, `_` and `-`")
    if wanted.schema is None:
        raise missing("text.format.schema")
    field = "text.format.schema"
    check_depth(wanted.schema, field)
    return wanted_form(body, (field, Grammar("json_schema", msgspec.json.encode(wanted.schema).decode())))


def variables_of(body: ContextFields) -> dict[str, Any]:
    """What the request says to the chat template beside its messages."""
    return told(body, body.reasoning.effort if body.reasoning else None)


def check_supported(body: ContextFields) -> None:
    """Refuse what would change the answer and is not there."""
    check_offered(body)
    if body.prompt is not None:
        raise Unsupported("`prompt` is not supported: there are no stored prompts", param="prompt",
                          hint="use `instructions` and `input`")
