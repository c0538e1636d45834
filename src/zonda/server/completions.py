"""`/v1/completions`."""
from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from zonda.completion import Choice, Completion
from zonda.errors import InvalidRequest, Unsupported
from zonda.prepare import fitting_text
from zonda.server.answers import answers, chunks
from zonda.server.call import Call
from zonda.server.decode import check_ids, several
from zonda.server.formats import compiled, wanted_form
from zonda.server.not_offered import check_offered
from zonda.server.reports import FINGERPRINT, finish_of, timings, total, usage_report
from zonda.server.sampling import check_stream, sampling_of
from zonda.server.schema import MAX_PROMPTS, CompletionRequest, TextChoice, TextCompletion, TextLogprobs
from zonda.server.sse import frame, stream
from zonda.server.tokens import TextSpelling, visible
from zonda.text.fill import between
from zonda.types import Chunk, Logprob, Sampling, Usage

if TYPE_CHECKING:
    from zonda.generation import Generation
    from zonda.sdk import AsyncLLM

MAX_TOKENS = 16
"""Tokens to generate where the request does not say, as OpenAI has it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as token ids, and the text that `echo` repeats."""

    tokens: Sequence[int]
    text: str


async def create(call: Call, body: CompletionRequest) -> None:
    """Continue the prompts, whole or as a stream."""
    llm = await call.use(body.model)
    sampling = _sampling(body, llm)
    given = _split(body)
    field, grammar = wanted_form(body)
    async with call.flight():
        prompts = await call.beside(lambda: [_prompt(llm, each, sampling, body) for each in given])
        answer = Answer(f"cmpl-{secrets.token_hex(12)}", int(time.time()), call, llm, body, prompts)
        tokens = [prompt.tokens for prompt in prompts]
        form = await compiled(call, llm, grammar, field)
        salt = call.salt(body.cache_salt)
        with answers(llm, tokens, sampling, form, name=answer.id, salt=salt) as generations:
            if body.stream:
                await stream(call, answer.frames(generations))
            else:
                completions = [await each.completion() for each in generations]
                told = [each.best(body.n or 1) for each in completions] if _chooses(body) else completions
                await call.reply(await call.beside(lambda: answer.whole(told), large=body.logprobs is not None))


def _sampling(body: CompletionRequest, llm: AsyncLLM) -> Sampling:
    check_offered(body)
    check_stream(body)
    if body.best_of is not None and body.best_of < (body.n or 1):
        raise InvalidRequest("`best_of` is less than `n`", param="best_of")
    if _chooses(body) and body.stream:
        raise InvalidRequest("`best_of` cannot be streamed, since all choices must end first", param="best_of")
    wanted = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    scored = bool(body.echo) and body.logprobs is not None
    logprobs = 0 if body.logprobs is None and _chooses(body) else body.logprobs
    return replace(sampling_of(body, max_tokens=wanted, logprobs=logprobs, prompt_logprobs=scored), n=_made(body))


def _made(body: CompletionRequest) -> int:
    """How many choices are generated for each prompt."""
    return body.best_of or body.n or 1


def _chooses(body: CompletionRequest) -> bool:
    return _made(body) > (body.n or 1)


def _split(body: CompletionRequest) -> Sequence[str | list[int]]:
    prompts = several(body.prompt, "prompt")
    if len(prompts) * _made(body) > MAX_PROMPTS:
        raise InvalidRequest(f"`prompt` and `n` ask for more than {MAX_PROMPTS} choices", param="prompt")
    return prompts


def _prompt(llm: AsyncLLM, given: str | list[int], sampling: Sampling, body: CompletionRequest) -> Prompt:
    if isinstance(given, str):
        asked = _filling(llm, given, body.suffix) if body.suffix else given
        return Prompt(llm.tokenize(fitting_text(asked, llm.tokenizer, llm.engine.max_len, sampling)), given)
    check_ids(given, llm.engine.vocab, "prompt")
    if body.suffix:
        raise InvalidRequest("`suffix` needs a `prompt` of text", param="suffix")
    return Prompt(given, llm.detokenize(given, skip_special=False) if body.echo else "")


def _filling(llm: AsyncLLM, prefix: str, suffix: str) -> str:
    asked = between(prefix, suffix, llm.tokenizer)
    if asked is None:
        raise Unsupported("`suffix` is not supported: this model has not learnt to fill in", param="suffix",
                          hint="put what matters into the prompt")
    return asked


@dataclass(slots=True)
class Spelled:
    """What the stream of one choice has told so far."""

    spelling: TextSpelling
    opened: bool = False


@dataclass(slots=True)
class Answer:
    """The answer to one completion request, in either form."""

    id: str
    created: int
    call: Call
    llm: AsyncLLM
    body: CompletionRequest
    prompts: Sequence[Prompt]
    _scores: dict[int, Sequence[Logprob | None]] = field(default_factory=dict)
    """Log-probabilities of the prompts, by their numbers."""

    def whole(self, completions: Sequence[Completion]) -> TextCompletion:
        """The answer in one piece; the choices of the first prompt come first."""
        usage = self.call.usage = total([each.usage for each in completions])
        choices = [self._choice(number, completion, choice) for number, completion in enumerate(completions)
                   for choice in completion.choices]
        return self._message(choices, usage)

    def _choice(self, number: int, completion: Completion, choice: Choice) -> TextChoice:
        spelling = TextSpelling(self.llm.tokenizer)
        self._scores[number] = completion.prompt_logprobs or ()
        generated = visible(choice.logprobs, choice.finish_reason, choice.stop)
        logprobs = self._logprobs(spelling, generated, self.prompts[number] if self.body.echo else None, number)
        text = self.prompts[number].text + choice.text if self.body.echo else choice.text
        return TextChoice(index=self._index(number, choice.index), text=text, logprobs=logprobs,
                          finish_reason=finish_of(choice.finish_reason))

    def _index(self, number: int, choice: int) -> int:
        return number * (self.body.n or 1) + choice

    def _logprobs(self, spelling: TextSpelling, generated: Sequence[Logprob], echoed: Prompt | None,
                  number: int) -> TextLogprobs | None:
        """The lists for what a choice, or a chunk of it, says: the prompt first, if it is repeated here."""
        if self.body.logprobs is None or not (generated or echoed):
            return None
        tokens = [each.token for each in generated]
        if echoed is None:
            return spelling.spell(tokens, generated)
        scores = self._scores.get(number, ())
        unscored = [None] * (len(echoed.tokens) - len(scores))  # what truncation cut off
        return spelling.spell([*echoed.tokens, *tokens], [*unscored, *scores, *generated])

    async def frames(self, generations: Sequence[Generation[Chunk]]) -> AsyncIterator[bytes]:
        """The answer as events, one for what a step brings for one choice."""
        told: dict[int, Spelled] = {}
        usages: list[Usage] = []
        async for number, chunk in chunks(generations):
            if chunk.prompt_logprobs is not None:
                self._scores[number] = chunk.prompt_logprobs
            if chunk.usage:
                usages.append(chunk.usage)
            choice = self._piece(number, chunk, told)
            if choice.text or choice.finish_reason or choice.logprobs:
                yield frame(self._message([choice], None))
        self.call.usage = total(usages)
        if self.body.reported.include_usage:
            yield frame(self._message([], self.call.usage))

    def _piece(self, number: int, chunk: Chunk, told: dict[int, Spelled]) -> TextChoice:
        index = self._index(number, chunk.index)
        state = told.setdefault(index, Spelled(TextSpelling(self.llm.tokenizer)))
        echoed = self.prompts[number] if self.body.echo and not state.opened else None
        state.opened = True
        logprobs = self._logprobs(state.spelling, visible(chunk.logprobs, chunk.finish, chunk.stop), echoed, number)
        return TextChoice(index=index, text=echoed.text + chunk.text if echoed else chunk.text,
                          logprobs=logprobs, finish_reason=finish_of(chunk.finish))

    def _message(self, choices: list[TextChoice], usage: Usage | None) -> TextCompletion:
        counted = self.body.reported.include_usage or not self.body.stream
        counts = usage_report(usage) if usage else None
        return TextCompletion(id=self.id, created=self.created, model=self.call.model,
                              system_fingerprint=FINGERPRINT, choices=choices, usage=counts if counted else UNSET,
                              timings=timings(usage) if usage else UNSET)
