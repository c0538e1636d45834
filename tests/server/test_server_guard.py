"""Who may call: every route there is, found in the application's own table."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import Server, model, serving

from zonda.server import app
from zonda.server.endpoint import Endpoint
from zonda.server.guard import is_public

OPEN = {"/health", "/ui", "/ui/{file}"}


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    with serving(model(), api_key=("one", "two"), access_log=False) as server:
        yield server


def test_nothing_is_open_but_health_and_the_pages() -> None:
    assert {each.pattern for each in app.ENDPOINTS if each.open} == OPEN


@pytest.mark.parametrize("route", app.ENDPOINTS, ids=lambda route: f"{route.method} {route.pattern}")
def test_every_other_route_needs_a_key(locked: Server, route: Endpoint) -> None:
    path = route.pattern.format(id="chain", file="app.js", item="x")
    for headers in ({}, {"authorization": "Bearer on"}, {"x-api-key": "one,two"}, {"authorization": "one"}):
        status = locked.call(route.method, path, {} if route.method == "POST" else None, headers).status
        assert (status == 401) != route.open
    assert locked.call(route.method, path, {} if route.method == "POST" else None, {"x-api-key": "two"}).status != 401


@pytest.mark.parametrize("path", ["/nowhere", "/HEALTH", "/health/", "//health", "/health/../v1/models", "/health%2f..",
                                  "/health;/v1/models", "/v1/models?/health", "/uix", "/v1/../health"])
def test_no_spelling_of_a_path_is_a_way_around_the_key(locked: Server, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "HEAD", "PUT"):
        assert locked.call(method, path, b"").status == 401


@pytest.mark.parametrize("path", ["/ui/../v1/models", "/ui/%2e%2e/v1/models", "/ui/..%2fapp.py", "/ui//etc/passwd"])
def test_the_pages_lead_nowhere_else(locked: Server, path: str) -> None:
    assert locked.get(path).status == 404


def test_keys_are_compared_in_constant_time(locked: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda *both: compared.append(both) or False)  # type: ignore[func-returns-value]
    assert locked.get("/v1/models", **{"x-api-key": "one"}).status == 401
    assert len(compared) == 2 and all(len(each) == 32 for both in compared for each in both)


def test_an_open_server_does_not_trust_pages_of_public_names() -> None:
    with serving(model(), host="0.0.0.0", access_log=False) as server:
        for host, status in (("evil.example", 403), ("192.168.1.5:80", 200), ("box:80", 200), ("box.local", 200)):
            reply = server.call("POST", "/v1/completions", {"prompt": "x"}, {"host": host, "origin": f"http://{host}"})
            assert reply.status == status, host
        assert server.get("/v1/models", host="llm.example").status == 200  # a program, not a page
    with serving(model(), host="0.0.0.0", allowed_host=("llm.example",), access_log=False) as server:
        for host, status in (("llm.example", 200), ("evil.example", 403)):
            assert server.get("/v1/models", host=host, origin=f"http://{host}").status == status


def test_public_names_are_told_from_private_ones() -> None:
    assert all(map(is_public, ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example")))
    assert not any(map(is_public, ("127.0.0.1", "10.0.0.1", "::1", "localhost", "a.localhost", "box", "box.local", "")))
