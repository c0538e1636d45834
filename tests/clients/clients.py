"""Drives a server by the clients and agent frameworks that people use, each unchanged, in environments of their own.

    python tests/clients/clients.py                                     a scripted model, started for this
    python tests/clients/clients.py --serve smollm2                     a real one, started for this
    python tests/clients/clients.py --url http://127.0.0.1:8000 --model NAME --key KEY
"""
from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

HERE = Path(__file__).parent
PYTHON = ("openai", "anthropic<2", "langchain-openai", "langchain-anthropic", "pydantic-ai-slim[openai,anthropic]",
          "openai-agents", "instructor", "litellm", "pytest", "pytest-asyncio")
"""pydantic-ai cannot make messages with a newer `anthropic`."""
NODE = ("openai", "@anthropic-ai/sdk", "ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "@ai-sdk/anthropic", "zod")
INSTALLING, RUNNING = 600, 900  # seconds


def main() -> int:
    """Install, run, and tell by the status whether all went well; what cannot be installed is skipped."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--serve", metavar="MODEL", help="a model to start a server with")
    given.add_argument("--url", help="a running server's address")
    given.add_argument("--model", default="default", help="the model to ask there")
    given.add_argument("--key", default="none", help="an API key")
    given.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "zonda-clients",
                       help="where the clients are installed, and found again")
    options = given.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with server(options) as environment:
        return python(options.folder, environment) | node(options.folder, environment)


@contextmanager
def server(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """What the clients must know of the server."""
    if options.url:
        with urlopen(f"{options.url.rstrip('/')}/health", timeout=10):
            pass
        yield _environment(options.url, options.key, options.model)
        return
    if options.serve:
        with served(options.serve) as (url, key):
            yield _environment(url, key, "default")
        return
    from actor import KEY, acting

    with acting() as url:
        yield _environment(url, KEY, "scripted")


@contextmanager
def served(model: str) -> Iterator[tuple[str, str]]:
    """The address and the key of a server with a real model, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = secrets.token_hex(8)
    process = subprocess.Popen([sys.executable, "-m", "zonda", "serve", "-m", model, "--port", str(port),
                                "--no-access-log"], env={**os.environ, "ZONDA_API_KEY": key})
    try:
        while not _healthy(f"http://127.0.0.1:{port}"):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with status {process.returncode}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", key
    finally:
        process.terminate()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=10):
            return True
    except OSError:
        return False


def _environment(url: str, key: str, model: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**known, "ZONDA_URL": url.rstrip("/"), "ZONDA_KEY": key, "ZONDA_MODEL": model}


def python(folder: Path, environment: Mapping[str, str]) -> int:
    """The Python clients."""
    place = folder / "python"
    program = str(place / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    if not Path(program).exists():
        venv.create(place, with_pip=True)
    if not (installed("Python", [program, "-m", "pip", "install", "--quiet", "uv"])
            and installed("Python", [program, "-m", "uv", "pip", "install", "--quiet", "--python", program, *PYTHON])):
        return 0
    settings = ("asyncio_mode=auto", "asyncio_default_test_loop_scope=session",
                "asyncio_default_fixture_loop_scope=session")
    command = [program, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(HERE), "--noconftest", "-p",
               "no:cacheprovider", "-W", "ignore", *(word for each in settings for word in ("-o", each))]
    return ran([*command, str(HERE / "roundtrips.py")], environment)


def node(folder: Path, environment: Mapping[str, str]) -> int:
    """The JavaScript clients."""
    npm, place = shutil.which("npm"), folder / "node"
    if npm is None:
        print("skipped: the JavaScript clients, since there is no npm here")
        return 0
    place.mkdir(exist_ok=True)
    (place / "package.json").write_text("{}")
    quiet = ("--silent", "--no-audit", "--no-fund", "--prefix", str(place))
    if not installed("JavaScript", [npm, "install", *quiet, *NODE]):
        return 0
    return ran(["node", "--test", "--test-reporter=spec", str(HERE / "roundtrips.mjs")],
               {**environment, "ZONDA_MODULES": str(place)})


def installed(language: str, command: list[str]) -> bool:
    """Whether an installation went well."""
    try:
        done = subprocess.run(command, timeout=INSTALLING, capture_output=True, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"skipped: the {language} clients cannot be installed: {error}")
        return False
    if done.returncode:
        print(f"skipped: the {language} clients cannot be installed:\n{done.stderr[-2000:]}")
    return not done.returncode


def ran(command: list[str], environment: Mapping[str, str]) -> int:
    """1 if something failed."""
    return int(subprocess.run(command, env=environment, timeout=RUNNING).returncode != 0)


if __name__ == "__main__":
    raise SystemExit(main())
