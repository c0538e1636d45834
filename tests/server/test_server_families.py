"""Families of routes: their own way to tell errors, pages that need no key, and where browsers are sent."""
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from fakes import hold, model, runner, serving, until

from zonda.server import app
from zonda.server.call import Call
from zonda.server.endpoint import Endpoint
from zonda.server.errors import Envelope, told


def strange(error: Exception, id: str) -> Any:
    return {"strange": told(error).error.message, "id": id}


STRANGE = Envelope(strange, lambda body: b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n",
                   lambda error: 418)


async def page(call: Call) -> None:
    await call.reply_bytes(b"hello", b"text/html")


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Endpoint(method="GET", path=path, answer=page, summary="A page", open=True, quiet=True)
             for path in ("/ui/", "/ui/{file:path}")]
    monkeypatch.setattr(app, "ENDPOINTS", (*pages, *app.ENDPOINTS))
    monkeypatch.setattr(app, "ENVELOPES", {"/v1/completions": STRANGE, "/v1/odd": STRANGE})


@pytest.mark.usefixtures("families")
def test_a_family_of_routes_tells_errors_in_its_own_way() -> None:
    with serving(model(), api_key=("k",), access_log=False) as server:
        id = {"x-request-id": "me"}
        key = {"authorization": "Bearer k"}
        for path, headers, word in (("/v1/completions", id, "API key"), ("/v1/odd/unknown", id | key, "route"),
                                    ("/v1/completions", id | key, "`prompt` is missing")):
            reply = server.post(path, {}, **headers)
            assert reply.status == 418 and word in reply.json["strange"] and reply.json["id"] == "me"
        assert server.post("/v1/oddity", {}, **key).error["code"] == "not_found"
        assert server.post("/v1/chat/completions", {}, **key).status == 400


@pytest.mark.usefixtures("families")
def test_a_family_of_routes_ends_its_streams_in_its_own_way() -> None:
    with serving(model(), access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        with server.open("/v1/completions", {"prompt": "A", "stream": True}) as sock, sock.makefile("rb") as lines:
            gate.release(2)
            until(lambda: len(runner(server.llm).steps) == 2)  # type: ignore[arg-type]
            runner(server.llm).fault = ValueError()  # type: ignore[arg-type]
            gate.release()
            seen = b""
            while not seen.endswith(b"\r\n0\r\n\r\n"):
                seen += lines.readline()
    assert b"event: error\n" in seen
    last = [line for line in seen.splitlines() if line.startswith(b"data: ")][-1]
    assert "failed to compute" in json.loads(last[6:])["strange"]


@pytest.mark.usefixtures("families")
def test_open_pages_need_no_key() -> None:
    with serving(model(), api_key=("k",), access_log=False) as server:
        asked = {path: server.get(path).status for path in ("/ui/", "/ui/a/b.js", "/uix", "/v1/models")}
        assert list(asked.values()) == [200, 200, 401, 401]


@pytest.mark.usefixtures("families")
def test_a_browser_is_sent_from_the_root_to_the_pages() -> None:
    with serving(model(), api_key=("k",), access_log=False) as server:
        reply = server.get("/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
        assert (reply.status, reply.headers["location"]) == (307, "/ui/")
        assert server.get("/", accept="*/*").status == 401
        assert server.get("/", accept="*/*", authorization="Bearer k").json["name"] == "zonda"


def test_without_pages_a_browser_sees_what_everyone_sees() -> None:
    with serving(model(), access_log=False, ui=False) as server:
        assert server.get("/", accept="text/html").json["name"] == "zonda"
