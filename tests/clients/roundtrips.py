"""Python clients and agent frameworks, unchanged, against the server at ZONDA_URL. `clients.py` runs this."""
from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel

URL, KEY, MODEL = (os.environ[f"ZONDA_{name}"] for name in ("URL", "KEY", "MODEL"))
SCRIPTED = MODEL == "scripted"
QUESTION = "How is the weather in Paris?"
LIMIT = 700
BRIEF: dict[str, Any] = {} if SCRIPTED else {"extra_body": {"stop": [" ", "\n"]}}
"""Ends the text of a small model early: clients take one that was cut for an error."""
City = Literal["Paris", "Rome"]
"""A small model would write a free text until its answer is cut."""
scripted_only = pytest.mark.skipif(not SCRIPTED, reason="needs the scripted model")
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"


class Weather(BaseModel):
    """The weather of a city."""

    city: City
    degrees: int


def is_told(text: str) -> None:
    """The final answer tells what the tool said."""
    assert text == "It is 21 degrees in Paris." if SCRIPTED else isinstance(text, str)


def is_weather(value: Any) -> None:
    found = value if isinstance(value, Weather) else Weather.model_validate(value)
    assert not SCRIPTED or found == Weather(city="Paris", degrees=21)


@pytest.fixture
def one() -> Any:
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def other() -> Any:
    with anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0) as client:
        yield client


# The official clients

SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
          "additionalProperties": False}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
FLAT: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


@pytest.mark.parametrize("streamed", [False, True])
def test_openai_chat_calls_a_tool_and_goes_on(one: openai.OpenAI, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    fields: Any = {"model": MODEL, "tools": [TOOL], "max_tokens": LIMIT}

    def ask(choice: Any) -> Any:
        asked = fields | (BRIEF if choice == "none" else {}) | {"messages": messages, "tool_choice": choice}
        if not streamed:
            return one.chat.completions.create(**asked)
        with one.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
            kinds = {event.type for event in stream}
            assert choice == "none" or "tool_calls.function.arguments.done" in kinds
            return stream.get_final_completion()

    answer = ask({"type": "function", "function": {"name": "weather"}})
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and set(json.loads(call.function.arguments)) == {"city"}
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees in Paris"}]
    answer = ask("none")
    is_told(answer.choices[0].message.content)
    assert answer.usage.completion_tokens > 0


def test_openai_chat_parses_an_answer(one: openai.OpenAI) -> None:
    answer = one.chat.completions.parse(model=MODEL, messages=[{"role": "user", "content": QUESTION}],
                                        response_format=Weather, max_tokens=LIMIT)
    is_weather(answer.choices[0].message.parsed)


@pytest.mark.parametrize("streamed", [False, True])
def test_openai_responses_calls_a_tool_and_goes_on(one: openai.OpenAI, streamed: bool) -> None:
    def ask(**fields: Any) -> Any:
        fields |= {"model": MODEL, "tools": [FLAT], "max_output_tokens": LIMIT}
        fields |= BRIEF if fields["tool_choice"] == "none" else {}
        if not streamed:
            return one.responses.create(**fields)
        with one.responses.stream(**fields) as stream:
            numbers = [event.sequence_number for event in stream]
            assert numbers == [*range(len(numbers))]
            return stream.get_final_response()

    first = ask(input=QUESTION, tool_choice={"type": "function", "name": "weather"})
    (call,) = first.output
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees in Paris"}
    stored = ask(input=[output], previous_response_id=first.id, tool_choice="none")
    sent = ask(input=[{"role": "user", "content": QUESTION}, *first.output, output], tool_choice="none", store=False)
    for answer in (stored, sent):
        is_told(answer.output_text)
        assert answer.usage.output_tokens > 0


def test_openai_responses_parses_an_answer(one: openai.OpenAI) -> None:
    answer = one.responses.parse(model=MODEL, input=QUESTION, text_format=Weather, max_output_tokens=LIMIT)
    is_weather(answer.output_parsed)


@pytest.mark.parametrize("streamed", [False, True])
def test_anthropic_calls_a_tool_and_goes_on(other: anthropic.Anthropic, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    fields: Any = {"model": MODEL, "max_tokens": LIMIT, "tools": [{"name": "weather", "input_schema": SCHEMA}]}

    def ask(choice: Any) -> Any:
        if not streamed:
            return other.messages.create(messages=messages, tool_choice=choice, **fields)
        with other.messages.stream(messages=messages, tool_choice=choice, **fields) as stream:
            return stream.get_final_message()

    answer = ask({"type": "tool", "name": "weather"})
    (call,) = answer.content
    assert answer.stop_reason == "tool_use" and set(call.input) == {"city"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees in Paris"}
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    answer = ask({"type": "none"})
    is_told(answer.content[0].text)
    assert answer.usage.output_tokens > 0


def test_anthropic_parses_an_answer_and_runs_tools(other: anthropic.Anthropic) -> None:
    answer = other.messages.parse(model=MODEL, max_tokens=LIMIT, messages=[{"role": "user", "content": QUESTION}],
                                  output_format=Weather)
    is_weather(answer.parsed_output)
    if not SCRIPTED:
        return

    @anthropic.beta_tool
    def weather(city: City) -> str:
        """Tell the weather."""
        return f"21 degrees in {city}"

    runner = other.beta.messages.tool_runner(model=MODEL, max_tokens=LIMIT, tools=[weather],
                                             messages=[{"role": "user", "content": QUESTION}])
    is_told(runner.until_done().content[0].text)


def test_errors_have_their_classes() -> None:
    asked: Any = [{"role": "user", "content": "Hi"}]
    long: Any = [{"role": "user", "content": "word " * 50_000}]
    for library, url in ((openai, f"{URL}/v1"), (anthropic, URL)):
        def ask(key: str = KEY, model: str = MODEL, messages: Any = asked, *, library: Any = library,
                url: str = url, **fields: Any) -> Any:
            make = library.OpenAI if library is openai else library.Anthropic
            with make(base_url=url, api_key=key, max_retries=0) as client:
                create = client.chat.completions.create if library is openai else client.messages.create
                return create(model=model, messages=messages, max_tokens=4, **fields)

        with pytest.raises(library.AuthenticationError):
            ask(key="wrong")
        with pytest.raises(library.NotFoundError):
            ask(model="no-such-model")
        with pytest.raises(library.BadRequestError) as caught:
            ask(messages=long)
        assert "context" in str(caught.value)
        with pytest.raises(library.BadRequestError):
            ask(extra_body={"temperature": 9})


@scripted_only
def test_a_full_queue_says_when_to_come_again(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    asked: Any = [{"role": "user", "content": "busy"}]
    with pytest.raises(openai.RateLimitError) as limited:
        one.chat.completions.create(model=MODEL, messages=asked)
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.RateLimitError):
        one.responses.create(model=MODEL, input="busy")
    with pytest.raises(anthropic.APIStatusError) as full:
        other.messages.create(model=MODEL, messages=asked, max_tokens=4)
    assert full.value.response.headers["retry-after"] == "7"


@scripted_only
def test_an_answer_that_fails_midway_raises(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    asked: Any = [{"role": "user", "content": "count and fails"}]
    with pytest.raises(openai.APIError):
        list(one.chat.completions.create(model=MODEL, messages=asked, stream=True))
    assert [each.type for each in one.responses.create(model=MODEL, input="count and fails", stream=True)][-1] in (
        "response.failed", "error")
    with pytest.raises(anthropic.APIError):
        list(other.messages.create(model=MODEL, messages=asked, max_tokens=5000, stream=True))


def test_a_stream_can_be_left(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    asked: Any = [{"role": "user", "content": "count"}]
    for stream in (one.chat.completions.create(model=MODEL, messages=asked, stream=True),
                   one.responses.create(model=MODEL, input="count", stream=True),
                   other.messages.create(model=MODEL, messages=asked, max_tokens=500, stream=True)):
        next(iter(stream))
        stream.close()
    is_hello = one.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
    assert is_hello.choices[0].message.content


# LangChain

def langchain_models() -> list[Any]:
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    first: Any = {"base_url": f"{URL}/v1", "api_key": KEY, "model": MODEL, "max_retries": 0}
    first["max_tokens"] = LIMIT
    return [ChatOpenAI(**first, stream_usage=True), ChatOpenAI(**first, use_responses_api=True),
            ChatOpenAI(**first, use_responses_api=True, output_version="responses/v1"),
            ChatAnthropic(base_url=URL, api_key=KEY, model_name=MODEL, max_retries=0, max_tokens=LIMIT)]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("streamed", [False, True])
async def test_langchain_makes_the_round(kind: int, streamed: bool) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def weather(city: City) -> str:
        """Tell the weather."""
        return f"21 degrees in {city}"

    llm = langchain_models()[kind]

    async def ask(model: Any, messages: list[Any]) -> Any:
        if not streamed:
            return await model.ainvoke(messages)
        whole = None
        async for chunk in model.astream(messages):
            whole = chunk if whole is None else whole + chunk
        return whole

    messages: list[Any] = [HumanMessage(QUESTION)]
    answer = await ask(llm.bind_tools([weather], tool_choice="any"), messages)
    messages.append(answer)
    assert answer.tool_calls or not SCRIPTED
    for call in answer.tool_calls:
        messages.append(ToolMessage("21 degrees in Paris", tool_call_id=call["id"]))
    final = await ask(llm.bind_tools([weather], **({"tool_choice": "none"} if kind < 3 else {})), messages)
    is_told(final.text)
    assert final.usage_metadata["output_tokens"] > 0
    sync = llm.invoke("Hi")
    assert sync.content


@pytest.mark.parametrize("kind", range(4))
def test_langchain_gives_objects(kind: int) -> None:
    llm = langchain_models()[kind]
    for method in ("json_schema", "function_calling"):
        found = llm.with_structured_output(Weather, method=method).invoke(QUESTION)
        is_weather(found)


# pydantic-ai

def pydantic_models() -> list[Any]:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    return [OpenAIChatModel(MODEL, provider=provider), OpenAIResponsesModel(MODEL, provider=provider),
            AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=anthropic.AsyncAnthropic(
                base_url=URL, api_key=KEY)))]


def pydantic_agent(kind: int, *, armed: bool = True, **options: Any) -> Any:
    """An agent, which has a tool if it is armed."""
    from pydantic_ai import Agent

    agent: Any = Agent(pydantic_models()[kind], model_settings={"max_tokens": LIMIT}, retries=3, **options)
    if not armed:
        return agent

    @agent.tool_plain
    def weather(city: City) -> str:
        """Tell the weather."""
        return f"21 degrees in {city}"

    return agent


@pytest.mark.parametrize("kind", range(3))
async def test_pydantic_ai_makes_the_round(kind: int) -> None:
    agent = pydantic_agent(kind)
    result = await agent.run(QUESTION)
    is_told(result.output)
    assert result.usage.output_tokens > 0 if not callable(result.usage) else result.usage().output_tokens > 0
    async with agent.run_stream(QUESTION) as streamed:
        is_told(await streamed.get_output())
    again = await agent.run("And thanks, think", message_history=result.all_messages())
    assert again.output


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("mode", ["tool", "native"])
async def test_pydantic_ai_gives_objects(kind: int, mode: str) -> None:
    from pydantic_ai import NativeOutput, ToolOutput

    if (kind, mode) == (2, "native"):
        pytest.skip("pydantic-ai knows by their names which of Anthropic's models can do this")
    agent = pydantic_agent(kind, armed=SCRIPTED, output_type=(ToolOutput if mode == "tool" else NativeOutput)(Weather))
    is_weather((await agent.run(QUESTION)).output)
    async with agent.run_stream(QUESTION) as streamed:
        is_weather(await streamed.get_output())


# openai-agents

def agents_model(kind: str) -> Any:
    from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel

    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY)
    return (OpenAIChatCompletionsModel if kind == "chat" else OpenAIResponsesModel)(MODEL, client)


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_openai_agents_make_the_round(kind: str) -> None:
    from agents import Agent, ModelSettings, Runner, function_tool

    @function_tool
    def weather(city: City) -> str:
        """Tell the weather."""
        return f"21 degrees in {city}"

    agent = Agent("it", instructions="Be brief.", model=agents_model(kind), tools=[weather],
                  tool_use_behavior="run_llm_again" if SCRIPTED else "stop_on_first_tool",
                  model_settings=ModelSettings(max_tokens=LIMIT, tool_choice="required", parallel_tool_calls=False))
    result = await Runner.run(agent, QUESTION)
    is_told(result.final_output)
    streamed = Runner.run_streamed(agent, QUESTION)
    kinds = {event.type async for event in streamed.stream_events()}
    assert {"raw_response_event", "run_item_stream_event"} <= kinds
    is_told(streamed.final_output)
    assert result.context_wrapper.usage.output_tokens > 0
    again = await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "Thanks."}])
    assert again.final_output


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_openai_agents_give_objects_and_hand_over(kind: str) -> None:
    from agents import Agent, ModelSettings, Runner

    settings = ModelSettings(max_tokens=LIMIT)
    agent = Agent("it", model=agents_model(kind), output_type=Weather, model_settings=settings)
    is_weather((await Runner.run(agent, QUESTION)).final_output)
    if SCRIPTED:
        first = Agent("first", model=agents_model(kind), handoffs=[agent], model_settings=settings)
        assert (await Runner.run(first, QUESTION)).last_agent.name == "it"


# Others

def test_instructor_gives_objects(one: openai.OpenAI) -> None:
    import instructor

    free = [instructor.Mode.JSON] if SCRIPTED else []
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA, *free):
        client = instructor.from_openai(one, mode=mode)
        found = client.chat.completions.create(model=MODEL, response_model=Weather, max_tokens=LIMIT,
                                               messages=[{"role": "user", "content": QUESTION}])
        is_weather(found.model_dump())


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_litellm_makes_the_round(kind: str) -> None:
    import litellm

    place = {"api_base": URL if kind == "anthropic" else f"{URL}/v1", "api_key": KEY, "model": f"{kind}/{MODEL}"}
    asked: Any = [{"role": "user", "content": QUESTION}]
    tools = {"tools": [TOOL], "max_tokens": LIMIT, **place}
    message = litellm.completion(messages=asked, tool_choice="required", **tools).choices[0].message
    asked += [message.model_dump(exclude_none=True)]
    asked += [{"role": "tool", "tool_call_id": call.id, "content": "21 degrees in Paris"}
              for call in message.tool_calls]
    brief = {"stop": ["\n", "."]} if not SCRIPTED else {}
    told = "".join(chunk.choices[0].delta.content or ""
                   for chunk in litellm.completion(messages=asked, stream=True, **brief, **tools))
    is_told(told)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(messages=[{"role": "user", "content": "word " * 50_000}], max_tokens=4, **place)


@pytest.mark.parametrize("kind", range(4))
def test_langchain_knows_a_prompt_that_is_too_long(kind: int) -> None:
    from langchain_core.exceptions import ContextOverflowError

    with pytest.raises(ContextOverflowError):
        langchain_models()[kind].invoke("word " * 50_000)


async def test_many_clients_at_once() -> None:
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as client:
        async def one() -> str:
            stream = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}],
                                                          stream=True, max_tokens=8)
            return "".join([each.choices[0].delta.content or "" async for each in stream if each.choices])

        assert all(await asyncio.gather(*(one() for _ in range(8))))
