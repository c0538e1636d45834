"""`/v1/responses`."""
from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from zonda.errors import ContextExceeded, InvalidRequest, Unsupported, ZondaError
from zonda.server import errors, responses_tools
from zonda.server import responses_compaction as compaction
from zonda.server import responses_input as given
from zonda.server.call import Call
from zonda.server.conversation import ending
from zonda.server.conversations import going_on, kept_in, talk_of
from zonda.server.errors import Crowded, Envelope, NotFound
from zonda.server.formats import compiled
from zonda.server.responses_events import ErrorEvent, Event, hidden
from zonda.server.responses_items import ItemList, ItemQuery, Names, item_page
from zonda.server.responses_run import Run, Writing
from zonda.server.responses_schema import (
    Compacted,
    CompactRequest,
    ContextFields,
    Deleted,
    InputTokensRequest,
    Item,
    ReasoningUsed,
    Response,
    ResponseQuery,
    ResponseRequest,
    TextFormat,
    TextUsed,
    TokenCount,
)
from zonda.server.responses_store import Kept
from zonda.server.responses_writer import Mute, Writer, retell, usage_of
from zonda.server.sampling import check_stream, sampling_of
from zonda.server.schema import TokenLogprob
from zonda.server.sse import DONE, named, stream
from zonda.server.tokens import chat_logprobs, visible
from zonda.turns import Prepared, Turn
from zonda.types import Chunk, Sampling

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

MAX_FOLLOWERS = 64
"""Clients that may follow one response while it is written: each piece is told to all of them."""
_SAID = {"messages": "input", "response_format": "text.format"}
"""What errors about a turn call its parts, and what they are called here."""


async def create(call: Call, body: ResponseRequest) -> None:
    """Write a response: whole, as a stream, or in the background."""
    await respond(call, body, _stream if body.stream else _whole)


async def respond(call: Call, body: ResponseRequest, tell: Callable[[Call, Kept, Writing], Awaitable[None]], *,
                  rehearse: bool = False) -> None:
    """Write a response, in the way of `tell` if not in the background; with `rehearse` it stays empty."""
    llm = await call.use(body.model)
    sampling = _sampling(body, llm)
    _check(call, body)
    names = Names(secrets.token_hex(16))
    async with call.flight(), going_on(call, body.conversation, f"resp_{names.core}") as talk:
        known = len(talk.items) if talk else 0
        items = await _context(call, body, names)
        compacts = given.compacts(body)
        turn = await call.beside(lambda: compaction.asked(body, items) if compacts else replace(
            _turn(body, items), sampling=Sampling(max_tokens=1) if rehearse else sampling))
        shortens = compacts or body.truncation == "auto"
        with _named():
            prepared = await call.beside(lambda: _prepare(llm, replace(turn, salt=call.salt(body.cache_salt)),
                                                          shorten=shortens))
        for field, grammar in responses_tools.grammars_of(body):
            await compiled(call, llm, grammar, field)
        await compiled(call, llm, prepared.grammar, given.form_of(body)[0])
        kept = Kept(_response(call, llm, body, names.core), items, call.owner, talk=talk, own=items[known:])
        with _named():
            conversing = llm.converse(prepared, request_id=kept.response.id)
        writer = (compaction.Compacting(kept.response, names.at) if compacts else Mute(kept.response, names.at)
                  if rehearse else _writer(body, kept.response, names))
        writing = Writing(writer, conversing, _speller(llm, body), bool(body.reported.include_obfuscation))
        if body.background:
            call.counted = False
            Run(call.service, kept, writing, call.lease.share() if call.lease else None, call.client)
            await _show(call, kept, -1, writing.hides) if body.stream else await call.reply(kept.response)
            return
        async with conversing:
            await tell(call, kept, writing)


async def get(call: Call, query: ResponseQuery) -> Response | None:
    """A stored response, or its events."""
    kept = _find(call)
    if not query.stream:
        if query.starting_after is not None:
            raise InvalidRequest("`starting_after` is only allowed when `stream` is true", param="starting_after")
        return kept.response
    call.counted = False
    async with call.flight():
        after = -1 if query.starting_after is None else query.starting_after
        await _show(call, kept, after, bool(query.include_obfuscation))
    return None


async def delete(call: Call) -> Deleted:
    """Forget a stored response; one that is being written is cancelled."""
    kept = _find(call)
    if isinstance(kept.run, Run):
        kept.run.stop()
    call.service.responses.drop(kept.response.id)
    return Deleted(kept.response.id)


async def cancel(call: Call) -> Response:
    """Cancel a response that is written in the background; one that has ended stays as it is."""
    kept = _find(call)
    if not kept.response.background:
        raise InvalidRequest("only responses that were created with `background` true can be cancelled")
    if isinstance(kept.run, Run):
        kept.run.stop()
    return kept.response


async def input_items(call: Call, query: ItemQuery) -> ItemList:
    """The items that led to a response, a page at a time."""
    return item_page(_find(call).items, query)


async def input_tokens(call: Call, body: InputTokensRequest) -> TokenCount:
    """Count the tokens of the prompt that a request would make."""
    llm = await call.use(body.model)
    given.check_supported(body)
    items = await _context(call, body, Names(secrets.token_hex(16)))
    turn = await call.beside(lambda: _turn(body, items))
    with _named():
        return TokenCount(input_tokens=await call.beside(lambda: llm.count(turn)))


async def compact(call: Call, body: CompactRequest) -> Compacted:
    """Put a conversation into fewer tokens: what the user and the system said, and a summary that the model writes."""
    llm = await call.use(body.model)
    given.check_supported(body)
    async with call.flight():
        names = Names(secrets.token_hex(16))
        items = await _context(call, body, names)
        turn = replace(compaction.asked(body, items), salt=call.salt(body.cache_salt))
        with _named():
            prepared = await call.beside(lambda: _prepare(llm, turn, shorten=True))
        async with llm.converse(prepared, request_id=f"resp_{names.core}") as conversing:
            answer = await conversing.completion()
    call.usage, choice = answer.usage, answer.choices[0]
    kept = [item for item in items if given.is_told(item)]
    summary = compaction.item_of(names.next("cmp"), choice.text, choice.thought)
    return Compacted(id=f"resp_{names.core}", created_at=int(time.time()), output=[*kept, summary],
                     usage=usage_of(answer.usage, answer.reasoning_tokens))


def _find(call: Call) -> Kept:
    kept = call.service.responses.get(call.scope["path_params"]["id"], call.owner)
    if kept is None:
        raise NotFound("there is no response of this id", hint="it was not stored, or has been forgotten",
                       param="id", code="response_not_found")
    return kept


def _writer(body: ResponseRequest, response: Response, names: Names) -> Writer:
    return Writer(response, names.at, summarize=bool(response.reasoning.summary),
                  sealing="reasoning.encrypted_content" in (body.include or ()))


def _length(body: ResponseRequest) -> int | None:
    """The most tokens to write; other routes' names for it are taken too."""
    named = (body.max_output_tokens, body.max_completion_tokens, body.max_tokens)
    return next((each for each in named if each is not None), None)


def _sampling(body: ResponseRequest, llm: AsyncLLM) -> Sampling:
    check_stream(body)
    length = _length(body)
    if body.n not in (None, 1):
        raise Unsupported("`n` is not supported: a response is one answer", param="n")
    wanted = bool(body.top_logprobs) or "message.output_text.logprobs" in (body.include or ())
    return sampling_of(body, max_tokens=length, logprobs=(body.top_logprobs or 0) if wanted else None)


def _check(call: Call, body: ResponseRequest) -> None:
    given.check_supported(body)
    if body.background and body.store is False:
        raise InvalidRequest("`background` needs `store` true", param="background")
    if body.background and not call.service.responses.keeps:
        raise Unsupported("this server keeps no responses, so none can run in the background", param="background")


async def _context(call: Call, body: ContextFields, names: Names) -> tuple[Item, ...]:
    """All items that lead to the answer: those of the responses before, and the input."""
    def find(id: str) -> Item | None:
        kept = call.service.recall(f"resp_{id.rpartition('_')[2][:-4]}", call)
        if kept is None:
            return None
        call.recalled = max(call.recalled, kept.size)
        return next((each for each in (*kept.items, *kept.response.output) if each.id == id), None)

    before = _before(call, body)
    own = tuple(await call.beside(lambda: given.items_of(body, names.next, find, before)))
    if not (own or before):
        raise InvalidRequest("`input` is empty, expected at least one item", param="input")
    return before + own


def _before(call: Call, body: ContextFields) -> tuple[Item, ...]:
    """What the items follow: those of a conversation, or of the responses before."""
    if body.previous_response_id is None:
        talk = talk_of(call, body.conversation)
        call.recalled = talk.size if talk else 0
        return tuple(talk.items) if talk else ()
    if body.conversation is not None:
        raise InvalidRequest("`conversation` and `previous_response_id` exclude each other", param="conversation")
    kept = call.service.recall(body.previous_response_id, call, use=True)
    if kept is None or kept.response.status not in ("completed", "incomplete"):
        why = "was not found" if kept is None else f"is {kept.response.status}"
        raise InvalidRequest(f"the previous response {why}", param="previous_response_id",
                             code="previous_response_not_found")
    call.recalled = kept.size
    return (*kept.items, *kept.response.output)


def _turn(body: ContextFields, items: Sequence[Item]) -> Turn:
    choice, allowed = responses_tools.choice_of(body)
    said, variables = given.messages_of(items, body.instructions), given.variables_of(body)
    with _named():
        begun, end = ending(said, body.continue_final_message, body.add_generation_prompt,
                            thinks=bool(variables.get("enable_thinking")))
    tools = responses_tools.tools_of(body)
    return Turn(messages=said, tools=responses_tools.as_chat(tools), patterns=responses_tools.patterns_of(tools),
                choice=choice, allowed=allowed, parallel=body.parallel_tool_calls is not False,
                format=given.form_of(body)[1], variables=variables | end, begun=begun)


@contextmanager
def _named() -> Iterator[None]:
    """Errors name the fields as they are called here."""
    try:
        yield
    except ZondaError as error:
        error.param = _SAID.get(error.param or "", error.param)
        raise


def _prepare(llm: AsyncLLM, turn: Turn, *, shorten: bool) -> Prepared:
    try:
        return llm.prepare(turn)
    except ContextExceeded:
        if not shorten:
            raise
    return _shortened(llm, turn)


def _shortened(llm: AsyncLLM, turn: Turn) -> Prepared:
    """The turn without the fewest of the oldest rounds that must go for the rest to fit; what the system says stays."""
    messages = turn.messages
    head = next((place for place, each in enumerate(messages) if each["role"] not in ("system", "developer")), 0)
    starts = [place for place, each in enumerate(messages) if place > head and each["role"] == "user"]
    low, found = 0, None
    high = len(starts) - 1
    while low <= high:
        middle = (low + high) // 2
        try:
            found = llm.prepare(replace(turn, messages=[*messages[:head], *messages[starts[middle]:]]))
            high = middle - 1
        except ContextExceeded:
            low = middle + 1
    return found or llm.prepare(turn)


def _response(call: Call, llm: AsyncLLM, body: ResponseRequest, core: str) -> Response:
    wanted = body.text.format if body.text else None
    summary = (body.reasoning.summary or body.reasoning.generate_summary) if body.reasoning else None
    return Response(
        id=f"resp_{core}", created_at=int(time.time()), status="queued" if body.background else "in_progress",
        background=bool(body.background), instructions=body.instructions, max_output_tokens=_length(body),
        max_tool_calls=body.max_tool_calls, model=call.model, parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id, conversation=kept_in(body.conversation),
        reasoning=ReasoningUsed(effort=body.reasoning.effort if body.reasoning else None, summary=summary),
        store=body.store is not False and call.service.responses.keeps,
        temperature=_drawn(body.temperature, llm, "temperature"), top_p=_drawn(body.top_p, llm, "top_p"),
        presence_penalty=body.presence_penalty or 0.0, frequency_penalty=body.frequency_penalty or 0.0,
        text=TextUsed(format=_format(wanted), verbosity=(body.text and body.text.verbosity) or "medium"),
        tool_choice=body.tool_choice or "auto", tools=responses_tools.tools_of(body),
        top_logprobs=body.top_logprobs or 0,
        truncation=body.truncation or "disabled", metadata=body.metadata or {},
        user=UNSET if body.user is None else body.user,
        safety_identifier=body.safety_identifier, prompt_cache_key=body.prompt_cache_key)


def _drawn(wanted: float | None, llm: AsyncLLM, field: str) -> float:
    found = llm.defaults.get(field) if wanted is None else wanted
    return 1.0 if found is None else float(found)


def _format(wanted: TextFormat | None) -> dict[str, Any]:
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type if wanted else "text"}
    return {"type": "json_schema", "name": wanted.name, "description": wanted.description, "schema": wanted.schema,
            "strict": bool(wanted.strict)}


def _speller(llm: AsyncLLM, body: ResponseRequest) -> Callable[[Chunk], Sequence[TokenLogprob]]:
    if "message.output_text.logprobs" not in (body.include or ()) and not body.top_logprobs:
        return lambda chunk: ()
    return lambda chunk: chat_logprobs(llm.tokenizer, visible(chunk.logprobs, chunk.finish, chunk.stop)).content


async def _whole(call: Call, kept: Kept, writing: Writing) -> None:
    async for _ in writing.events():
        pass
    _keep(call, kept, writing)
    await call.reply(kept.response)


async def _stream(call: Call, kept: Kept, writing: Writing) -> None:
    tell_failure(call, kept, writing, lambda events: named(*events) + DONE)
    await stream(call, _frames(events_of(call, kept, writing), writing.hides))


async def _frames(told: AsyncIterator[Sequence[Event]], hides: bool) -> AsyncIterator[bytes]:
    async for events in told:
        yield named(*map(hidden, events) if hides else events)


async def events_of(call: Call, kept: Kept, writing: Writing) -> AsyncIterator[list[Event]]:
    """The events of a response as it is written; it is kept when it ends."""
    yield writing.writer.begin()
    async for events in writing.events():
        if writing.writer.done:
            _keep(call, kept, writing)
        yield events


def tell_failure(call: Call, kept: Kept, writing: Writing, told: Callable[[list[Event]], bytes]) -> None:
    """From here on whatever ends the call early is told as the end of the response, which is kept as failed."""
    def body(error: Exception, id: str) -> list[Event]:
        events = writing.fail(error)
        _keep(call, kept, writing)
        return events

    call.envelope = Envelope(body, told)


def _keep(call: Call, kept: Kept, writing: Writing) -> None:
    call.usage = writing.usage
    kept.response = writing.writer.response
    call.service.remember(kept)
    if kept.response.store:
        call.service.responses.put(kept)


async def _show(call: Call, kept: Kept, after: int, hides: bool) -> None:
    """Stream the events of a stored response, from the one after this number on."""
    def body(error: Exception, id: str) -> ErrorEvent:
        told = errors.told(error).error
        return ErrorEvent(sequence_number=len(kept.log or ()), code=told.code, message=told.message, param=told.param)

    if kept.running and kept.followers >= MAX_FOLLOWERS:
        raise Crowded(f"{MAX_FOLLOWERS} clients follow this response")
    kept.followers += 1
    try:
        call.envelope = Envelope(body, named)
        await stream(call, _frames(_told(kept, after), hides))
    finally:
        kept.followers -= 1


async def _told(kept: Kept, after: int) -> AsyncIterator[Sequence[Event]]:
    if kept.log is None:
        yield retell(kept.response, lambda prefix, place: kept.response.output[place].id)[after + 1:]
        return
    async for events in kept.follow(after):
        yield events
