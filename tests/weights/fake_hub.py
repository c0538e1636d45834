"""A hub on the loopback interface, as much of it as downloading asks for."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789" * 4


class FakeHub:
    """Repositories as name -> file -> bytes; `refusals` maps a name to a status and the library's error code."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        self.corrupt = False
        self.tokens: list[str | None] = []
        """What clients have sent to be let in."""
        self.ranges: list[str] = []
        """What was asked for of files, as clients said it."""
        self.resumed: list[int] = []
        """Where downloads went on."""
        self.cut: int | None = None
        """How many bytes of the next file are sent before the connection breaks."""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        if repo in self.refusals:
            status, code = self.refusals[repo]
            return status, {"X-Error-Code": code, "X-Error-Message": "no"}, b"{}"
        if repo not in self.repos:
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no"}, b"{}"
        files = self.repos[repo]
        if api and "tree" in parts:
            return 200, {}, json.dumps([_entry(name, data) for name, data in files.items()]).encode()
        if api and "nowhere" in parts:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no"}, b"{}"
        if api:
            siblings = [{"rfilename": name} | ({"size": len(data)} if "blobs=" in path else {})
                        for name, data in files.items()]
            return 200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings, "modelId": repo}).encode()
        return self._file(files["/".join(parts[4:])])

    def _file(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        digest = hashlib.sha256(data).hexdigest()
        sent = data[:-1] + bytes([data[-1] ^ 1]) if self.corrupt else data
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"',
                     "X-Linked-Size": str(len(data))}, sent


def _entry(name: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": digest[:40],
            "lfs": {"oid": digest, "size": len(data), "pointerSize": 1}}


@contextmanager
def serve(hub: FakeHub) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(self.path)
            hub.tokens.append(self.headers.get("Authorization"))
            status, headers, body = hub.answer(self.path)
            if "Range" in self.headers:
                hub.ranges.append(self.headers["Range"])
            start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            if start and status == 200:
                hub.resumed.append(start)
                status, headers = 206, headers | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
                body = body[start:]
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                if "/resolve/" in self.path and hub.cut:
                    body, hub.cut, self.close_connection = body[:hub.cut], None, True
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
