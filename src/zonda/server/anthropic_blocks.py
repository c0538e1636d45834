"""What the blocks of a message say, as text: all that a text model can be told of documents, searches and results."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from zonda.errors import InvalidRequest
from zonda.server.anthropic_schema import Block, Source
from zonda.server.decode import needed, no_text

MEDIA = frozenset({"image", "document"})
RESULTS = frozenset({"tool_result", "mcp_tool_result", "web_search_tool_result", "web_fetch_tool_result",
                     "code_execution_tool_result", "bash_code_execution_tool_result",
                     "text_editor_code_execution_tool_result", "tool_search_tool_result", "advisor_tool_result"})
CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
SILENT = frozenset({"fallback", "mcp_tool_listing"})
"""Blocks that Anthropic's service writes for itself, and shows to no model."""
_KNOWN = "expected text, thinking, a document, a search result, or a tool's use or result, as the role allows"

Content = str | Sequence[Block] | Block | None


def text_of(block: Block, place: str) -> str:
    """A block as text; raises for what is none, with its place."""
    match block.type:
        case "document" if isinstance(block.source, Source) and block.source.type in ("text", "content"):
            return _joined(block.title, block.context, _document(block.source, f"{place}.source"))
        case "search_result":
            return _joined(block.title, block.source, lines(block.content, f"{place}.content", _plain))
        case "compaction":
            return lines(block.content, f"{place}.content", _plain)
        case "tool_reference":
            return needed(block, "tool_name", place)
        case "container_upload":
            return f"Uploaded file: {needed(block, 'file_id', place)}"
        case "browser_state":
            return "\n".join(msgspec.json.encode(each).decode() for each in (*block.tabs, *(block.state_changes or ())))
    return _plain(block, place)


def result_of(block: Block, place: str) -> str:
    """What a tool has answered, whoever ran it."""
    said = lines(block.content, f"{place}.content", _outcome)
    return f"Error: {said}" if block.is_error else said


def lines(content: Content, place: str, read: Callable[[Block, str], str]) -> str:
    """The texts of blocks, a line each."""
    if isinstance(content, Block):
        return read(content, place)
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(read(each, f"{place}[{index}]") for index, each in enumerate(content))


def _outcome(block: Block, place: str) -> str:
    """What a tool that a server runs has answered; in a form that a model can read, encrypted parts left out."""
    kind = block.type
    if kind.endswith("_error"):
        return _joined(f"Error: {needed(block, 'error_code', place)}", block.error_message)
    if kind.endswith("code_execution_result"):
        files = [f"File: {each.file_id}" for each in (block.content if isinstance(block.content, list) else ())]
        failed = f"Return code: {block.return_code}" if block.return_code else None
        return _joined(block.stdout, block.stderr, *files, failed)
    match kind:
        case "web_search_result":
            return _joined(block.title, block.url, block.page_age)
        case "web_fetch_result":
            return _joined(block.url, lines(block.content, f"{place}.content", text_of))
        case "text_editor_code_execution_view_result":
            return lines(block.content, f"{place}.content", _plain)
        case "text_editor_code_execution_create_result":
            return "The file is updated." if block.is_file_update else "The file is created."
        case "text_editor_code_execution_str_replace_result":
            return "\n".join(block.lines or ())
        case "tool_search_tool_search_result":
            return lines(block.tool_references, f"{place}.tool_references", text_of)
        case "advisor_result":
            return needed(block, "text", place)
        case "advisor_redacted_result":
            return ""
    return text_of(block, place)


def _plain(block: Block, place: str) -> str:
    """A text alone, as documents and search results are made of."""
    if block.type == "text":
        return needed(block, "text", place)
    if block.type in MEDIA:
        raise no_text(block.type, place)
    raise InvalidRequest(f"`{place}.type` is {block.type!r:.60}, which is not known here", param=f"{place}.type",
                         hint=_KNOWN)


def _document(source: Source, place: str) -> str:
    return lines(source.content, f"{place}.content", _plain) if source.data is None else source.data


def _joined(*texts: object) -> str:
    return "\n".join(str(text).removesuffix("\n") for text in texts if text)
