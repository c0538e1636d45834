"""Headless Chromium, driven over a pipe by its own protocol."""
from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENCE

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
         "--font-render-hinting=none", "--remote-debugging-pipe")
LASTING = """{ const plain = window.setTimeout;
  window.setTimeout = (act, delay, ...rest) => plain(act, delay > 3000 ? 1e9 : delay, ...rest); }"""
"""Words that a page shows for some seconds stay: a busy machine may look for them later."""
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "ArrowUp": (38, ""), "ArrowDown": (40, ""), "Tab": (9, "")}


class Browser:
    """One browser; each page has storage of its own."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("no Chromium is installed")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        line = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, program, *FLAGS, f"--user-data-dir={folder}"], pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._lock = threading.Lock()
        self._count = 0
        self._replies: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        with self._lock:
            self._count += 1
            number, reply = self._count, queue.Queue[dict[str, Any]]()
            self._replies[number] = reply
            message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
            os.write(self._out, json.dumps(message).encode() + b"\0")
        found = reply.get(timeout=PATIENCE)
        assert "error" not in found, (method, found["error"])
        return found["result"]  # type: ignore[no-any-return]

    def page(self, *, width: int = 1280, height: int = 800, dark: bool = False, touch: bool = False,
             beside: Page | None = None) -> Page:
        """An empty page in a context of its own, or in that of another."""
        context = beside.context if beside else self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=LASTING)
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        page.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        page.media(prefers_color_scheme="dark" if dark else "light")
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        return page

    def close(self) -> None:
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._in, 1 << 20):
            *messages, rest = (rest + data).split(b"\0")
            for each in map(json.loads, messages):
                if "id" in each:
                    self._replies.pop(each["id"]).put(each)
                elif page := self._pages.get(each.get("sessionId", "")):
                    page.note(each["method"], each["params"])


class Page:
    """A tab: `problems` has what its console and its policy complained of, `requests` what it asked for."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser, self._session, self.context = browser, session, context
        self.problems: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def note(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(each.get("value", each)) for each in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def media(self, **features: str) -> None:
        """What media queries find."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=told)

    def go(self, url: str) -> None:
        self.js("window.left = true")
        self.call("Page.navigate", url=url)
        self.until("!window.left && document.querySelector('#question')")

    def js(self, expression: str) -> Any:
        """The value of an expression, which may be a promise."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, (expression, reply["exceptionDetails"])
        return reply["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for something, perhaps a promise, that must become true."""
        for _ in range(30 * PATIENCE):
            if self.js(f"Promise.resolve({expression}).then(Boolean)"):
                return
            time.sleep(0.03)
        raise AssertionError(f"never true: {expression}; the page says: {self.text('#app')[-600:]}")

    def text(self, selector: str) -> str:
        """The visible text of an element, empty while it is not there."""
        return self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")  # type: ignore[no-any-return]

    def count(self, selector: str) -> int:
        return self.js(f"document.querySelectorAll({json.dumps(selector)}).length")  # type: ignore[no-any-return]

    def sees(self, text: str, within: str = "#app") -> None:
        """Wait for a text."""
        self.until(f"document.querySelector({json.dumps(within)})?.innerText.includes({json.dumps(text)})")

    def click(self, selector: str) -> None:
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.js(f"document.querySelector({json.dumps(selector)}).click()")

    def label(self, name: str) -> None:
        """Press the last button of this label."""
        self.until(f"[...document.querySelectorAll('button')].some({_labelled(name)})")
        self.js(f"[...document.querySelectorAll('button')].filter({_labelled(name)}).at(-1).click()")

    def type(self, text: str, selector: str | None = None) -> None:
        if selector:
            self.until(f"document.querySelector({json.dumps(selector)})")
            self.js(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.js(f"{{ const field = document.querySelector({json.dumps(selector)}); field.focus(); field.select(); }}")
        self.type(text)

    def press(self, key: str, *, shift: bool = False, control: bool = False) -> None:
        code, text = KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, "" if control else key))
        fields = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift + 2 * control}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def wheel(self, selector: str, pixels: int) -> None:
        """Scroll as a mouse over the middle of an element does, downwards or, by less than nothing, up."""
        left, top, right, bottom = self.box(selector)
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=(left + right) / 2, y=(top + bottom) / 2, deltaX=0,
                  deltaY=pixels)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Where an element is: left, top, right, bottom."""
        return tuple(self.js("(({left, top, right, bottom}) => [left, top, right, bottom])"
                             f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"))

    def choose(self, selector: str, value: str) -> None:
        """Take an option of a list."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.js(f"{{ const choice = document.querySelector({json.dumps(selector)}); choice.value = {json.dumps(value)};"
                " choice.dispatchEvent(new Event('change', {bubbles: true})); }")

    def drop(self, name: str, kind: str, data: bytes) -> None:
        """Let a file fall onto the message."""
        self.until("document.querySelector('#question').placeholder.startsWith('Ask')")
        self.js(f"""{{
            const dataTransfer = new DataTransfer();
            const bytes = Uint8Array.from({list(data)});
            dataTransfer.items.add(new File([bytes], {json.dumps(name)}, {{type: {json.dumps(kind)}}}));
            const drop = new DragEvent('drop', {{dataTransfer, bubbles: true}});
            document.querySelector('.composer').dispatchEvent(drop); }}""")

    def ask(self, text: str) -> None:
        """Write a message and send it, once no answer is being written."""
        self.until("document.querySelector('#question').placeholder.startsWith('Ask')")
        self.type(text, "#question")
        self.until("document.querySelector('button.send:not(.stop):enabled')")
        self.press("Enter")

    def shot(self, path: Path | str) -> None:
        """A picture of what is seen."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self.context)


Pages = Callable[..., Page]
"""Opens a page on a server, `url`, with the options of `Browser.page`."""


def _labelled(name: str) -> str:
    named = f"(each.ariaLabel ?? each.innerText).trim() === {json.dumps(name)}"
    return f"each => !each.disabled && !each.ariaDisabled && {named}"
