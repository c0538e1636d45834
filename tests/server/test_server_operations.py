"""Health, metrics, documents, keys, hosts, origins, request ids and logs."""
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from fakes import Server, hold, let_go, logged, model, serving, until
from prometheus_client.parser import text_string_to_metric_families

from zonda import __version__
from zonda.environment import cache_folder, hub_folder
from zonda.server import app, chat_schema, schema
from zonda.server.guard import is_loopback


def metrics(server: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(server.get("/metrics").body.decode())
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for family in families
            for each in family.samples if not each.name.endswith("_created")}


def test_health_is_good_while_the_engine_runs(server: Server) -> None:
    reply = server.get("/health")
    assert (reply.status, reply.json) == (200, {"status": "ok", "models": {"chain": "ok"}})


def test_the_machine_is_told_and_examined_without_its_folders(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: pytest.fail("a request went out"))
    told, found = server.get("/v1/system/info").json, server.post("/v1/system/doctor", {}).json
    assert told["zonda"] == __version__ and told["cores"] > 0 and told["packages"]["msgspec"]
    assert {each["name"] for each in found["checks"]} >= {"packages", "memory", "cache"} and found["system"]["cores"]
    assert str(cache_folder()) not in json.dumps([told, found]) and str(hub_folder()) not in json.dumps([told, found])


def test_health_is_bad_while_no_model_is_loaded() -> None:
    with serving({}) as server:
        assert (server.get("/health").status, server.get("/health").json["status"]) == (503, "loading")
        reply = server.chat("x")
        assert (reply.status, reply.error["type"]) == (503, "server_error") and reply.headers["retry-after"]


def test_health_is_bad_while_a_step_is_stuck() -> None:
    with serving(model(), stall_timeout=0.05) as server:
        hold(server.llm)  # type: ignore[arg-type]
        with server.open("/v1/completions", {"prompt": "A"}):
            until(lambda: server.get("/health").status == 503)
            assert server.get("/health").json == {"status": "stuck", "models": {"chain": "stuck"}}
            assert server.get("/v1/models").json["data"][0]["status"] == "stuck"
            let_go(server.llm)  # type: ignore[arg-type]
            until(lambda: server.get("/health").status == 200)


def test_metrics_count_requests_and_tokens_by_model() -> None:
    with serving({"one": model(), "two": model()}) as server:
        server.chat("x")
        server.complete("x", model="two", n=2)
        server.complete("x", temperature=9)
        server.get("/v1/models/nothing")
        server.get("/nowhere")
        found = metrics(server)
    chat = (("method", "POST"), ("model", "one"), ("path", "/v1/chat/completions"), ("status", "200"))
    text = (("method", "POST"), ("model", "two"), ("path", "/v1/completions"), ("status", "200"))
    wrong = (("method", "POST"), ("model", "none"), ("path", "/v1/completions"), ("status", "400"))
    lost = (("method", "GET"), ("model", "none"), ("path", "<unmatched>"), ("status", "404"))
    assert [found["http_requests_total", labels] for labels in (chat, text, wrong, lost)] == [1, 1, 1, 1]
    assert found["http_request_duration_seconds_count", chat] == 1
    assert found["http_request_body_bytes_count", chat[:-1]] == 1
    one, two = (("model", "one"),), (("model", "two"),)
    assert (found["zonda_prompt_tokens_total", one], found["zonda_generated_tokens_total", one]) == (6, 3)
    assert found["zonda_tokens_processed_total", one] == 9
    assert found["zonda_sequences_completed_total", (("model", "two"), ("reason", "stop"))] == 2
    assert found["zonda_time_to_first_token_seconds_count", two] == 1
    assert found["zonda_inter_token_latency_seconds_count", two] == 4


def test_metrics_have_all_the_engines_names(server: Server) -> None:
    names = {name for name, _ in metrics(server)}
    assert names >= {f"zonda_{each}" for each in (
        "time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket", "tokens_processed_total",
        "prefix_cache_lookups_total", "prefix_cache_hits_total", "prefix_cache_evictions_total", "sequences_running",
        "sequences_waiting", "sequences_capacity", "sequences_completed_total", "sequences_rejected_total",
        "kv_cache_blocks_used", "kv_cache_blocks_total", "paged_preemptions_total")}


def test_requests_in_flight_are_counted() -> None:
    labels = (("method", "POST"), ("model", "chain"), ("path", "/v1/completions"))
    with serving(model()) as server:
        hold(server.llm)  # type: ignore[arg-type]
        with server.open("/v1/completions", {"prompt": "A"}):
            until(lambda: metrics(server).get(("http_requests_in_flight", labels)) == 1)
        until(lambda: ("http_requests_in_flight", labels) not in metrics(server))
        gone = (("method", "POST"), ("model", "chain"), ("path", "/v1/completions"), ("status", "499"))
        assert metrics(server)["http_requests_total", gone] == 1


def test_metrics_can_be_left_out() -> None:
    with serving(model(), metrics=False) as server:
        assert server.get("/metrics").status == 404
        assert "/metrics" not in server.get("/openapi.json").json["paths"]


@pytest.mark.parametrize("path", ["/", "/v1/models", "/metrics", "/docs", "/openapi.json", "/nowhere"])
def test_a_key_is_needed_everywhere_but_for_health(path: str) -> None:
    with serving(model(), api_key=("one", "two")) as server:
        for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}, {"x-api-key": "thre"},
                        {"authorization": "Bearer one two"}, {"authorization": "Bearer \xe9"}):
            reply = server.get(path, **headers)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
            assert reply.headers["www-authenticate"] == "Bearer"
        for headers in ({"authorization": "Bearer two"}, {"authorization": "bearer  one"}, {"x-api-key": "one"},
                        {"authorization": "Bearer ", "x-api-key": "one"}):
            assert server.get(path, **headers).status != 401
        assert server.get("/health").status == 200


def test_pages_of_other_origins_may_not_call(server: Server) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://[broken"):
        reply = server.get("/v1/models", origin=origin)
        assert (reply.status, reply.error["type"]) == (403, "permission_error")
    assert server.get("/v1/models", origin=server.url).status == 200


def test_origins_that_are_named_may_call() -> None:
    with serving(model(), cors_origin=("https://app.example",)) as server:
        reply = server.get("/v1/models", origin="https://app.example")
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert server.get("/v1/models", origin="https://evil.example").status == 403
        asked = {"origin": "https://app.example", "access-control-request-method": "POST",
                 "access-control-request-headers": "authorization"}
        assert server.call("OPTIONS", "/v1/completions", headers=asked).status == 200
    with serving(model(), cors_origin=("*",)) as server:
        assert server.get("/v1/models", origin="https://any.example").headers["access-control-allow-origin"] == "*"


def test_foreign_host_names_are_refused_on_loopback(server: Server) -> None:
    for host in ("evil.example", "evil.example:1234", "127.0.0.1.evil.example"):
        assert server.get("/v1/models", host=host).status == 403
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "a.localhost"):
        assert server.get("/v1/models", host=host).status == 200


def test_host_names_can_be_listed() -> None:
    with serving(model(), allowed_host=("llm.example",), api_key=("k",)) as server:
        assert server.get("/v1/models", host="LLM.example:80", authorization="Bearer k").status == 200
        assert server.get("/v1/models", host="localhost", authorization="Bearer k").status == 403


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "")))


def test_a_request_id_is_echoed_if_plain_and_made_otherwise(server: Server) -> None:
    assert server.get("/health", **{"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for odd in ("a b", "x" * 129, "", "\xe9"):
        made = server.get("/health", **{"x-request-id": odd}).headers["x-request-id"]
        assert made != odd and len(made) == 32
    assert server.chat("x", stream=True).headers["x-request-id"] and server.get("/nowhere").headers["x-request-id"]


def test_a_request_id_is_left_out_where_it_is_not_wanted() -> None:
    with serving(model(), request_id_header=False) as server:
        for reply in (server.get("/health"), server.chat("x"), server.post("/v1/messages", {})):
            assert not {"x-request-id", "request-id"} & reply.headers.keys()


def test_a_line_is_logged_for_each_request_without_its_content() -> None:
    with logged("zonda.access") as lines, serving(model(), access_log=True) as server:
        server.call("POST", "/v1/chat/completions?a=1", {"messages": "secretw"}, {"x-request-id": "me"})
        server.get("/health")
        server.get("/no%0Awhere")
        until(lambda: len(lines) == 2)
    first, second = lines
    assert first.startswith("client=127.0.0.1 method=POST path=/v1/chat/completions status=200 model=chain ms=")
    assert first.endswith(" prompt_tokens=12 completion_tokens=4 id=me")
    assert "path=/no%0Awhere status=404" in second and " error=not_found " in second


def test_the_log_can_be_json_or_silent() -> None:
    with logged("zonda.access") as lines:
        with serving(model(), access_log=True, access_log_format="json", access_log_health=True) as server:
            server.chat("x")
            server.get("/health")
            until(lambda: len(lines) == 2)
        with serving(model(), access_log=False) as server:
            server.chat("x")
    parsed = [json.loads(line) for line in lines]
    assert [each["path"] for each in parsed] == ["/v1/chat/completions", "/health"]
    assert (parsed[0]["status"], parsed[0]["completion_tokens"]) == (200, 3)


def test_the_document_lists_every_route(server: Server) -> None:
    document = server.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    known = {(each.method.lower(), each.pattern) for each in app.ENDPOINTS}
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == known
    for method, path in known:
        body = {"prompt": "x", "messages": "x"} if method == "post" else None
        reply = server.call(method.upper(), path.format(id="chain", file="app.js", item="x"), body)
        assert b'"not_found"' not in reply.body and reply.status not in {405, 500}


def test_the_document_has_no_dangling_reference(server: Server) -> None:
    document = server.get("/openapi.json").json
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    assert "$defs" not in text


@pytest.mark.parametrize(("ask", "kind"), [
    (lambda server: server.chat("x", logprobs=True).json, chat_schema.ChatCompletion),
    (lambda server: server.complete("x", echo=True, logprobs=1).json, schema.TextCompletion),
    (lambda server: server.get("/v1/models").json, schema.ModelList),
    (lambda server: server.get("/health").json, schema.Health),
    (lambda server: server.get("/nowhere").json, schema.ErrorReply)])
def test_answers_are_as_documented(server: Server, ask: Any, kind: type) -> None:
    answer = ask(server)
    assert json.loads(msgspec.json.encode(msgspec.convert(answer, kind))) == answer


@pytest.mark.parametrize("before", ["", "/v1/v1"])
def test_addresses_may_leave_out_the_version_or_have_it_twice(server: Server, before: str) -> None:
    body = {"messages": [{"role": "user", "content": "w"}], "max_tokens": 2}
    whole = server.chat("w", max_tokens=2).json["choices"]
    assert server.get(f"{before}/models").json == server.get("/v1/models").json
    assert server.post(f"{before}/chat/completions", body).json["choices"] == whole
    assert server.post(f"{before}/messages", body | {"max_tokens": 0}).json["type"] == "error"


def test_the_docs_page_is_whole_in_itself(server: Server) -> None:
    reply = server.get("/docs")
    page = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/html") and "/v1/chat/completions" in page
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "<script" not in page and "http" not in page.replace("http server", "")


def test_head_answers_without_a_body(server: Server) -> None:
    reply = server.call("HEAD", "/health")
    assert (reply.status, reply.body) == (200, b"")
