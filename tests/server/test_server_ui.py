"""The files of the web UI: who gets them, how, and that they are all there is."""
from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from fakes import Server, model, serving

from zonda.server import ui

FILES = sorted(ui.assets())


def test_the_page_is_served_at_ui(server: Server) -> None:
    reply = server.get("/ui")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'<script type="module" src="ui/app.js">' in reply.body


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type(server: Server, name: str) -> None:
    reply = server.get(f"/ui/{name}")
    assert reply.status == 200 and reply.body == (ui.FOLDER / name).read_bytes()
    assert reply.headers["content-type"].encode() == ui.MEDIA[Path(name).suffix]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_no_file_of_the_package_is_left_behind() -> None:
    lying = {path.relative_to(ui.FOLDER).as_posix() for path in ui.FOLDER.rglob("*") if path.is_file()}
    assert lying == set(FILES)


def test_the_package_stays_small() -> None:
    assert sum(len(each.body) for each in ui.assets().values()) < 1_500_000


def test_every_import_and_link_leads_to_a_file() -> None:
    for name in FILES:
        if name.startswith("vendor/") or Path(name).suffix not in {".js", ".css", ".html"}:
            continue
        text = (ui.FOLDER / name).read_text("utf-8")
        found = re.findall(r'(?:from |import |import\(|URL\(|url\()"?(\.[^")]+)', text)
        for target in found:
            if target != "../v1/":
                assert (ui.FOLDER / name).parent.joinpath(target).is_file(), (name, target)


def test_nothing_is_fetched_from_elsewhere() -> None:
    for name in FILES:
        if not name.startswith("vendor/") and Path(name).suffix in {".js", ".css", ".html"}:
            found = re.findall(r"https?://[^\s\"')]+", (ui.FOLDER / name).read_text("utf-8"))
            assert not found, name


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inside_the_page(server: Server) -> None:
    policy = server.get("/ui").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "frame-ancestors 'none'" in policy and "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


@pytest.mark.parametrize("path", [
    "/ui/../ui.py", "/ui/..%2fui.py", "/ui/%2e%2e/ui.py", "/ui//etc/passwd", "/ui/%2fetc%2fpasswd", "/ui/vendor",
    "/ui/vendor/", "/ui/views/../app.js", "/ui/..\\ui.py", "/ui/app.js%00", "/ui/nothing.js", "/uix"])
def test_other_paths_are_not_found(server: Server, path: str) -> None:
    reply = server.get(path)
    assert (reply.status, reply.error["code"]) == (404, "not_found")


def test_a_browser_that_has_the_file_is_told_so(server: Server) -> None:
    first = server.get("/ui/app.js")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for given in (tag, f'"other", {tag}'):
        again = server.call("GET", "/ui/app.js", headers={"if-none-match": given})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert server.call("GET", "/ui/app.js", headers={"if-none-match": '"other"'}).status == 200


def test_texts_are_compressed_for_those_who_take_it(server: Server) -> None:
    reply = server.call("GET", "/ui/vendor/marked.js", headers={"accept-encoding": "gzip, br"})
    assert reply.headers["content-encoding"] == "gzip" and reply.headers["vary"] == "accept-encoding"
    assert gzip.decompress(reply.body) == (ui.FOLDER / "vendor/marked.js").read_bytes()


def test_the_files_need_no_key_but_the_api_does() -> None:
    with serving(model(), api_key=("secret",)) as server:
        assert [server.get(path).status for path in ("/ui", "/ui/app.js", "/v1/models", "/", "/uix")] \
            == [200, 200, 401, 401, 401]
        assert server.get("/", accept="text/html").status == 307


def test_browsers_are_sent_to_the_page_and_programs_are_not(server: Server) -> None:
    reply = server.get("/", accept="text/html,application/xhtml+xml")
    assert (reply.status, reply.headers["location"]) == (307, "/ui/")
    assert server.get("/", accept="application/json").json["name"] == "zonda"
    assert (server.get("/ui/").status, server.get("/ui/").headers["location"]) == (307, "../ui")


def test_the_ui_can_be_left_out() -> None:
    with serving(model(), ui=False) as server:
        assert [server.get(path).status for path in ("/ui", "/ui/", "/ui/app.js")] == [404, 404, 404]
        assert server.get("/", accept="text/html").json["name"] == "zonda"
    with serving(model(), ui=False, api_key=("secret",)) as server:
        assert [server.call("GET", path, headers={"accept": "text/html"}).status for path in ("/ui", "/")] == [401, 401]


def test_the_page_is_there_while_the_model_loads() -> None:
    with serving({}) as server:
        assert server.get("/ui").status == 200


def test_licences_of_what_is_vendored_are_served_too(server: Server) -> None:
    notice = server.get("/ui/vendor/NOTICE.md").body.decode()
    for name in re.findall(r"`(licences/[\w-]+\.txt)`", notice):
        assert server.get(f"/ui/vendor/{name}").status == 200
    assert notice.count("licences/") >= 9
