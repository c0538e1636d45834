"""What `/v1/chat/completions` answers, whole and streamed."""
from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import WIND, Server, model, serving
from script import speaking

from zonda.text.parts import CallArguments, CallStart, Text, Thought
from zonda.text.template import ChatTemplate
from zonda.types import Sampling


def deltas(events: list[Any], index: int = 0) -> str:
    """The text that the chunks of a choice add up to."""
    choices = [choice for event in events[:-1] for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def rendered(server: Server) -> dict[str, Any]:
    """What the template was last called with."""
    return server.llm.template.calls[-1]  # type: ignore[union-attr]


def test_an_answer_has_openais_shape(server: Server) -> None:
    answer = server.chat("w").json
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage", "timings"}
    assert answer["id"].startswith("chatcmpl-") and answer["object"] == "chat.completion" and answer["model"] == "chain"
    assert answer["choices"] == [{"index": 0, "message": {"role": "assistant", "content": "xyz", "refusal": None},
                                  "logprobs": None, "finish_reason": "stop"}]


def test_usage_counts_tokens_and_those_from_the_cache() -> None:
    with serving(model()) as server:
        first, second = (server.chat("b" * 40 + "w").json["usage"] for _ in range(2))
        assert first == {"prompt_tokens": 46, "completion_tokens": 4, "total_tokens": 50,
                         "prompt_tokens_details": {"cached_tokens": 0},
                         "completion_tokens_details": {"reasoning_tokens": 0}}
        assert second["prompt_tokens_details"]["cached_tokens"] == 32


def test_timings_say_where_the_time_went(server: Server) -> None:
    timings = server.chat("w").json["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == 6 and timings["predicted_n"] == 4
    assert all(value >= 0 for value in timings.values())


def test_the_length_limit_ends_an_answer(server: Server) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        choice = server.chat("a", **{field: 3}).json["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("bcd", "length")


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 32_000}, {"max_completion_tokens": 2**31 - 1}])
def test_the_context_ends_an_answer_that_could_be_longer(limit: dict[str, int]) -> None:
    with serving(model(max_len=40)) as server:
        choice = server.chat("A", **limit).json["choices"][0]
        assert (len(choice["message"]["content"]), choice["finish_reason"]) == (34, "length")
        events = server.chat("A", stream=True, **limit).events
        assert len(deltas(events)) == 34 and events[-1] == "[DONE]"
        assert events[-2]["choices"][0]["finish_reason"] == "length"


def test_stop_strings_end_an_answer_before_them(server: Server) -> None:
    for stop in ("de", ["q", "de"]):
        choice = server.chat("a", stop=stop).json["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("bc", "stop")
    assert deltas(server.chat("a", stop="de", stream=True).events) == "bc"


def test_several_choices_are_numbered(server: Server) -> None:
    choices = server.chat("w", n=3).json["choices"]
    assert [(each["index"], each["message"]["content"]) for each in choices] == [(0, "xyz"), (1, "xyz"), (2, "xyz")]
    events = server.chat("w", n=3, stream=True).events
    assert [deltas(events, index) for index in range(3)] == ["xyz"] * 3


def test_a_stream_opens_with_the_role_and_closes_with_the_reason(server: Server) -> None:
    events = server.chat("w", stream=True).events
    assert events[-1] == "[DONE]"
    assert all(set(event) - {"timings"} == {"id", "object", "created", "model", "system_fingerprint", "choices"}
               for event in events[:-1])
    assert len({event["id"] for event in events[:-1]}) == 1
    assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}
    choices = [event["choices"][0] for event in events[:-1]]
    assert [each["delta"] for each in choices] == [{"role": "assistant", "content": ""}, {"content": "x"},
                                                   {"content": "y"}, {"content": "z"}, {}]
    assert [each["finish_reason"] for each in choices] == [None] * 4 + ["stop"]
    assert all(each["logprobs"] is None for each in choices)


def test_usage_comes_last_in_a_stream_that_asks_for_it(server: Server) -> None:
    events = server.chat("w", stream=True, stream_options={"include_usage": True}).events
    assert events[-1] == "[DONE]" and all(event["usage"] is None for event in events[:-2])
    assert events[-2]["choices"] == [] and events[-2]["usage"]["completion_tokens"] == 4
    assert "timings" in events[-3]


def test_a_stream_can_hide_the_lengths_of_its_pieces() -> None:
    parts = [Thought("I"), Text("a"), Text("bcdefgh"), CallStart(0, "c", "look"), CallArguments(0, "{}")]
    with serving(speaking(parts), access_log=False) as server:
        reply = server.chat("w", stream=True, stream_options={"include_obfuscation": True})
        pieces = [frame for frame in reply.body.split(b"\n\n") if b'"obfuscation"' in frame]
        assert len(pieces) == 6 and len({len(frame) % 32 for frame in pieces}) == 1
        assert len({event["obfuscation"] for event in reply.events[:-2]}) > 1
        assert b"obfuscation" not in server.chat("w", stream=True).body


def test_a_character_is_never_split_over_chunks(server: Server) -> None:
    events = server.chat("#", stream=True).events
    texts = [event["choices"][0]["delta"].get("content") for event in events[:-1]]
    assert texts == ["", WIND, None]
    assert server.chat("#").json["choices"][0]["message"]["content"] == WIND


def test_bytes_that_are_no_text_become_replacement_characters(server: Server) -> None:
    assert server.chat("@").json["choices"][0]["message"]["content"] == "\ufffd"
    assert deltas(server.chat("@", stream=True).events) == "\ufffd"


def test_logprobs_name_tokens_bytes_and_alternatives(server: Server) -> None:
    assert server.chat("x", top_logprobs=0).json["choices"][0]["logprobs"] is None
    content = server.chat("x", logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"]
    assert [(each["token"], each["bytes"]) for each in content] == [("y", [121]), ("z", [122])]
    assert all(set(each) == {"token", "logprob", "bytes", "top_logprobs"} for each in content)
    assert all(-1 < each["logprob"] <= 0 for each in content)
    assert [len(each["top_logprobs"]) for each in content] == [2, 2]
    assert set(content[0]["top_logprobs"][0]) == {"token", "logprob", "bytes"}


def test_streamed_logprobs_add_up_to_the_whole(server: Server) -> None:
    whole = server.chat("x", logprobs=True).json["choices"][0]["logprobs"]["content"]
    events = server.chat("x", logprobs=True, stream=True).events
    parts = [each["choices"][0]["logprobs"] for each in events[:-1]]
    assert [entry["token"] for part in parts if part for entry in part["content"]] == [each["token"] for each in whole]
    assert whole[0]["top_logprobs"] == []


def test_logprobs_of_a_part_of_a_character_have_its_bytes(server: Server) -> None:
    content = server.chat("#", logprobs=True).json["choices"][0]["logprobs"]["content"]
    assert bytes(byte for each in content for byte in each["bytes"]) == WIND.encode()


def test_a_lone_text_is_a_user_message(server: Server) -> None:
    server.post("/v1/chat/completions", {"messages": "wx"})
    assert rendered(server)["messages"] == [{"role": "user", "content": "wx"}]


def test_text_parts_keep_their_order_in_every_role(server: Server) -> None:
    parts = [{"type": "input_text", "text": "one"}, {"type": "refusal", "refusal": "two"}]
    seen = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    roles = ["system", "developer", "user", "assistant", "tool"]
    server.post("/v1/chat/completions", {"messages": [{"role": role, "content": parts} for role in roles]})
    assert rendered(server)["messages"] == [{"role": role, "content": seen} for role in roles]


BEGUN: Any = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "wx"}]


@pytest.mark.parametrize("content", ["wx", [{"type": "text", "text": "w"}, {"type": "text", "text": "x"}]])
def test_a_last_message_that_is_to_go_on_begins_the_answer(server: Server, content: Any) -> None:
    body = {"messages": [BEGUN[0], {"role": "assistant", "content": content}], "continue_final_message": True,
            "add_generation_prompt": False}
    assert server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"] == "yz"
    assert deltas(server.post("/v1/chat/completions", body | {"stream": True}).events) == "yz"
    assert rendered(server)["messages"] == BEGUN[:1] and "add_generation_prompt" not in rendered(server)
    tokens = server.post("/tokenize", body).json["tokens"]
    assert bytes(tokens) == b"user:Qwx"


def test_the_template_can_be_told_not_to_begin_an_answer(server: Server) -> None:
    server.chat("w", add_generation_prompt=False)
    assert rendered(server)["add_generation_prompt"] is False


@pytest.mark.parametrize(("fields", "param"), [
    ({"messages": BEGUN[:1]}, "messages"), ({"add_generation_prompt": True}, "continue_final_message"),
    ({"enable_thinking": True}, "messages"), ({"response_format": {"type": "json_object"}}, "messages"),
    ({"messages": [*BEGUN[:1], {"role": "assistant", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]}, "messages")], ids=str)
def test_what_cannot_begin_an_answer_is_refused(server: Server, fields: dict[str, Any], param: str) -> None:
    reply = server.post("/v1/chat/completions", {"messages": BEGUN, "continue_final_message": True} | fields)
    assert (reply.status, reply.error["param"]) == (400, param)


def test_tool_calls_and_results_reach_the_template(server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    server.post("/v1/chat/completions", {"tools": tools, "messages": [
        {"role": "assistant", "content": None, "tool_calls": [call, broken], "reasoning_content": "why"},
        {"role": "tool", "content": "ok", "tool_call_id": "c1", "name": "f"},
        {"role": "tool", "content": None, "tool_call_id": "c2"}]})
    assistant, tool, silent = rendered(server)["messages"]
    assert assistant == {"role": "assistant", "content": None, "tool_calls": [call, broken], "reasoning_content": "why"}
    assert tool == {"role": "tool", "content": "ok", "tool_call_id": "c1", "name": "f"}
    assert silent == {"role": "tool", "content": None, "tool_call_id": "c2"}
    assert rendered(server)["tools"] == tools


def test_tools_are_hidden_when_no_call_is_wanted(server: Server) -> None:
    server.chat("x", tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="none")
    assert rendered(server)["tools"] is None


@pytest.mark.parametrize(("fields", "told"), [
    ({}, {}),
    ({"enable_thinking": False}, {"enable_thinking": False}),
    ({"reasoning_effort": "high"}, {"enable_thinking": True, "reasoning_effort": "high"}),
    ({"reasoning_effort": "none"}, {"enable_thinking": False}),
    ({"thinking_budget": 0}, {"enable_thinking": False, "thinking_budget": 0}),
    ({"thinking_token_budget": 9}, {"thinking_budget": 9}), ({"thinking_budget_tokens": 9}, {"thinking_budget": 9}),
    ({"thinking_budget": -1}, {}),
    ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}), ({"thinking": True}, {"enable_thinking": True}),
    ({"thinking": {"type": "enabled", "budget_tokens": 9}}, {"enable_thinking": True, "thinking_budget": 9}),
    ({"thinking": {"type": "auto"}, "enable_thinking": False}, {"enable_thinking": False}),
    ({"reasoning": {"effort": "low", "max_tokens": 9}}, {"enable_thinking": True, "reasoning_effort": "low",
                                                         "thinking_budget": 9}),
    ({"reasoning": {"enabled": False}}, {"enable_thinking": False}),
    ({"reasoning_effort": "low", "enable_thinking": False}, {"enable_thinking": False, "reasoning_effort": "low"}),
    ({"chat_template_kwargs": {"thinking": True}}, {"thinking": True})])
def test_the_template_is_told_of_reasoning(server: Server, fields: dict[str, Any], told: dict[str, Any]) -> None:
    assert server.chat("x", **fields).status == 200
    assert {name: value for name, value in rendered(server).items() if name not in ("messages", "tools")} == told


def test_a_request_cannot_bring_a_template(server: Server) -> None:
    assert server.chat("x", chat_template="{{ raise_exception('mine') }}").status == 200
    assert "chat_template" not in rendered(server)


def test_a_request_sets_what_the_template_reads_and_nothing_else() -> None:
    llm = model()
    llm.template = ChatTemplate("{{ persona }}: {{ messages[0].content }}{{ secret }}", bos="b")
    with serving(llm) as server:
        def ask(**variables: Any) -> Any:
            return server.chat("x", chat_template_kwargs=variables)

        assert ask(persona="a", thinking=True).status == 200
        refused = [ask(chat_template="s3cr3t"), ask(bos_token="s3cr3t"), ask(messages="s3cr3t"), ask(range="s3cr3t")]
    for reply in refused:
        assert reply.status == 400 and reply.error["param"] == "chat_template_kwargs"
        assert b"s3cr3t" not in reply.body
    assert "known: clear_thinking, date_string, enable_thinking, persona" in refused[0].error["message"]


def test_what_the_template_refuses_is_a_bad_request_with_its_line() -> None:
    llm = model()
    llm.template = ChatTemplate("{{ messages[0].content }}\n"
                                "{% if messages[1] %}{{ raise_exception('one turn') }}{% endif %}")
    with serving(llm) as server:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        reply = server.post("/v1/chat/completions", {"messages": turns})
        assert (reply.status, reply.error["param"]) == (400, "messages")
        assert "line 2 of the chat template refuses" in reply.error["message"]
        assert server.chat("x").status == 200


def test_every_sampling_field_reaches_the_engine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sampling] = []
    converse = server.llm.converse  # type: ignore[union-attr]

    def spy(prepared: Any, **kwargs: Any) -> Any:
        seen.append(prepared.sampling)
        return converse(prepared, **kwargs)

    monkeypatch.setattr(server.llm, "converse", spy)
    fields = {"max_tokens": 7, "min_tokens": 1, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1,
              "typical_p": 0.8, "top_n_sigma": 1.5, "xtc_probability": 0.2, "xtc_threshold": 0.3, "mirostat_tau": 4.0,
              "mirostat_eta": 0.2, "presence_penalty": 0.1, "frequency_penalty": 0.2, "repetition_penalty": 1.1,
              "dry_multiplier": 0.3, "dry_base": 1.5, "dry_allowed_length": 3, "dry_sequence_breakers": ["a"],
              "logit_bias": {"97": 2.0}, "seed": 5, "stop": ["q"], "stop_token_ids": [3], "ignore_eos": True, "n": 2,
              "truncate_sequence": True}
    assert server.chat("x", **fields).status == 200
    lists = {"dry_sequence_breakers": ("a",), "stop": ("q",), "stop_token_ids": (3,), "logit_bias": {97: 2.0}}
    assert seen == [Sampling(**(fields | lists))]  # type: ignore[arg-type]


def test_mirostat_two_alone_is_enough(server: Server) -> None:
    assert server.chat("x", mirostat=2, seed=1).json["choices"][0]["message"]["content"] == "yz"


def test_a_logit_bias_changes_the_answer(server: Server) -> None:
    choice = server.chat("x", logit_bias={str(ord("m")): 100}, max_tokens=1).json["choices"][0]
    assert choice["message"]["content"] == "m"


def test_the_model_is_chosen_by_name_and_the_first_by_default() -> None:
    with serving({"org/one": model(), "two": model()}) as server:
        assert [server.chat("x", **fields).json["model"] for fields in ({}, {"model": "default"}, {"model": "two"})] \
            == ["org/one", "org/one", "two"]
        cards = server.get("/v1/models").json
        assert cards["object"] == "list" and [card["id"] for card in cards["data"]] == ["org/one", "two"]
        card = server.get("/v1/models/org/one").json
        assert (card["object"], card["owned_by"], card["max_model_len"]) == ("model", "local", 2000)
        assert server.get("/v1/models/org/three").error["code"] == "model_not_found"


def test_large_conversations_are_rendered_too(server: Server) -> None:
    messages = [{"role": "user", "content": "b" * 10}] * 1500
    reply = server.post("/v1/chat/completions", {"messages": messages, "truncate_sequence": True, "max_tokens": 2})
    assert len(json.dumps(messages)) > 16_384 and reply.json["choices"][0]["message"]["content"] == "cd"
