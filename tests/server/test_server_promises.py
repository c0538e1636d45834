"""What holds in every protocol alike: contexts, characters, and neighbours that nobody can hurt."""
from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import PATIENCE, WIND, Reply, Server, hold, let_go, model, runner, serving, until

from zonda.engine.engine import MAX_FAILURES

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")


def asked(path: str, text: str, *, tokens: int = 40, **fields: Any) -> dict[str, Any]:
    if path == "/v1/completions":
        return {"prompt": text, "max_tokens": tokens, **fields}
    if path == "/v1/responses":
        return {"input": text, "max_output_tokens": tokens, **fields}
    return {"model": "chain", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, **fields}


def pieces(path: str, reply: Reply) -> list[str]:
    """The pieces of text that a stream brought."""
    events = [event for event in reply.events if isinstance(event, dict)]
    if path == "/v1/responses":
        return [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    if path == "/v1/messages":
        return [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    choices = [choice for event in events for choice in event["choices"]]
    return [choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_no_prompt_is_cut_in_silence(server: Server, path: str, stream: bool) -> None:
    most = server.get("/v1/models").json["data"][0]["max_model_len"]
    reply = server.post(path, asked(path, "x" * most, stream=stream))
    assert reply.status == 400 and str(most) in reply.json["error"]["message"]
    assert path == "/v1/messages" or reply.error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("path", PATHS)
def test_a_character_comes_whole(server: Server, path: str) -> None:
    found = pieces(path, server.post(path, asked(path, "#", stream=True)))
    assert "".join(found) == WIND and "\ufffd" not in "".join(found) and WIND in found


@pytest.mark.parametrize("path", PATHS)
def test_bad_requests_do_not_hurt_their_neighbours(path: str) -> None:
    bomb = {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]} if path == PATHS[0] else {"not": {}}
    bad: list[Any] = [b"{", b"\xff", asked(PATHS[0], "x", n=129), asked(PATHS[0], "x", guided_json={"not": {}}),
                      asked(PATHS[0], "x" * 5000), asked(PATHS[0], "x", guided_regex="("),
                      asked(PATHS[0], "x", logit_bias={"999": 1}), asked(PATHS[0], "x", guided_json=bomb)]
    with serving(model(), access_log=False) as server, ThreadPoolExecutor(1) as pool:
        gate = hold(server.llm)  # type: ignore[arg-type]
        neighbour = pool.submit(server.post, path, asked(path, "a", stream=True))
        until(lambda: server.service.flights)
        gate.release(5)
        for body in bad:
            assert server.post(PATHS[0], body).status == 400
        let_go(server.llm)  # type: ignore[arg-type]
        assert "".join(pieces(path, neighbour.result(PATIENCE))) == "bcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("path", PATHS)
def test_when_the_engine_dies_a_stream_says_so_and_ends(path: str) -> None:
    with serving(model(), access_log=False) as server, ThreadPoolExecutor(1) as pool:
        gate = hold(server.llm)  # type: ignore[arg-type]
        running = pool.submit(server.post, path, asked(path, "a", stream=True))
        until(lambda: server.service.flights)
        gate.release(3)
        until(lambda: len(runner(server.llm).steps) == 3)  # type: ignore[arg-type]
        server.llm.engine._failures = MAX_FAILURES - 1  # type: ignore[union-attr]
        runner(server.llm).fault = ValueError("/secret")  # type: ignore[arg-type]
        gate.release()
        *_, last = (event for event in running.result(PATIENCE).events if path != "/v1/responses" or event != "[DONE]")
        assert "error" in json.dumps(last) and "secret" not in json.dumps(last)
        assert server.get("/health").status == 503
        let_go(server.llm)  # type: ignore[arg-type]
