"""Clients that connect, stream, stall and vanish at random, for a while; then: what has leaked, and does it drain?

    python benchmarks/soak.py --seconds 60                        # over a model that continues the alphabet
    python benchmarks/soak.py --seconds 600 --model FILE          # over a real one: right is what it says alone
    python benchmarks/soak.py --seconds 600 --port 1234 --pid PID # against a running server

Exit status 1 when a stream was wrong, something was left behind, or draining took longer than 5 s.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from traffic import free_port

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONG = 400  # tokens, more than the alphabet has
LENGTHS = (8, 16, 32, 64)  # tokens that a real model is asked for
FAKE = """
import sys
sys.path.insert(0, sys.argv[2])
from fakes import model
from zonda.options import ServerOptions
from zonda.server import serve

serve(model(max_seqs=64), ServerOptions(port=int(sys.argv[1]), access_log=False))
"""
DRAIN = 5.0  # seconds
Question = tuple[str, dict[str, Any], str]
"""A route, a request, and the text of its answer."""


def main() -> int:
    args = _arguments()
    own = None
    if args.port is None:
        args.port = free_port()
        tests = Path(__file__).parent.parent / "tests" / "server"
        command = [sys.executable, "-c", FAKE, str(args.port), str(tests)]
        if args.model:
            command = [sys.executable, "-c", "from zonda.cli.main import main; main()", "serve", "-m", args.model,
                       "--port", str(args.port), "--max-seqs", "64", "--no-access-log", "--drain-timeout", "4"]
        own = subprocess.Popen(command)
        args.pid = own.pid
    try:
        _await_health(args.port)
        args.questions = _learnt(args.port) if args.model else _alphabet()
        return asyncio.run(_soak(args, own))
    finally:
        if own and own.poll() is None:
            own.kill()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--port", type=int, help="of a running server on this machine; else one is started")
    parser.add_argument("--model", help="a model to serve instead of the alphabet")
    parser.add_argument("--pid", type=int, help="its process, to watch memory and open files")
    return parser.parse_args()


async def _soak(args: argparse.Namespace, own: subprocess.Popen[bytes] | None) -> int:
    counts: Counter[str] = Counter()
    await _crowd(args, counts, min(5.0, args.seconds / 4))  # memory and files as they are once all has been used
    before = await _settled(args)
    await _crowd(args, counts, args.seconds)
    after = await _settled(args)
    wrong = [f"{name}: {before[name]} -> {after[name]}" for name, most in
             {"running": 0, "waiting": 0, "pages": before["pages"], "files": before["files"] + 4,
              "kb": before["kb"] * 1.1 + 8192}.items() if after[name] > most]
    wrong += [f"{counts['wrong']} streams were wrong"] if counts["wrong"] else []
    if own:
        seconds = await _drain(args, own, counts)
        print(f"drained in {seconds:.2f} s, exit status {own.returncode}")
        wrong += [f"draining took {seconds:.1f} s"] if seconds > DRAIN or own.returncode else []
    print(dict(counts), f"before {before}", f"after {after}", sep="\n")
    print("failed: " + "; ".join(wrong) if wrong else "nothing was left behind")
    return bool(wrong)


async def _settled(args: argparse.Namespace) -> dict[str, float]:
    """The state once nobody is served any more, or after two seconds."""
    for _ in range(10):
        await asyncio.sleep(0.2)
        state = _state(args)
        if not state["running"] + state["waiting"] + state["pages"]:
            break
    return state


async def _crowd(args: argparse.Namespace, counts: Counter[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    await asyncio.gather(*(_client(args.port, random.Random(number), end, counts, args.questions)
                           for number in range(args.clients)))


async def _client(port: int, dice: random.Random, end: float, counts: Counter[str],
                  questions: list[Question]) -> None:
    while time.monotonic() < end:
        how = dice.choice(("whole", "stream", "stream", "stall", "vanish", "vanish before", "half a body",
                           "bad field"))
        try:
            counts[how] += 1
            await _one(port, dice, how, counts, dice.choice(questions))
        except OSError:
            counts["refused"] += 1
            await asyncio.sleep(0.1)


async def _one(port: int, dice: random.Random, how: str, counts: Counter[str], question: Question) -> None:
    leaves = how.startswith("vanish") or how == "half a body"
    path, fields, expected = question
    changes = {"n": 0} if how == "bad field" else {"max_tokens": LONG} if leaves else {}
    body = json.dumps(fields | {"stream": how != "whole"} | changes).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n")
    writer.write(head.encode() + (body[:9] if how == "half a body" else body))
    try:
        if leaves:
            await asyncio.sleep(dice.random() * 0.2)
            if how == "vanish":
                await reader.read(200)
            if dice.random() < 0.5:
                writer.transport.abort()
            return
        if how == "stall":
            await asyncio.sleep(dice.random())
        counts[_judged(await reader.read(), how, expected)] += 1
    finally:
        writer.close()


def _alphabet() -> list[Question]:
    """Letters, to which the rest of the alphabet is the answer."""
    return [(*asked, LETTERS[place + 1:]) for place, letter in enumerate(LETTERS) for asked in _asked(letter, LONG)]


def _learnt(port: int) -> list[Question]:
    """Questions to a real model, with the answers that it gives when nobody else asks."""
    every = [asked for place, letter in enumerate(LETTERS)
             for asked in _asked(f"Words that begin with {letter}:", LENGTHS[place % len(LENGTHS)])]
    return [(path, fields, _alone(port, path, fields)) for path, fields in every]


def _alone(port: int, path: str, fields: dict[str, Any]) -> str:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(fields).encode())
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return _text(json.load(answer))


def _asked(prompt: str, length: int) -> list[tuple[str, dict[str, Any]]]:
    """Routes, and requests for the likeliest continuation of a prompt."""
    common = {"max_tokens": length, "temperature": 0}
    return [("/v1/chat/completions", common | {"messages": [{"role": "user", "content": prompt}]}),
            ("/v1/completions", common | {"prompt": prompt}),
            ("/v1/completions", common | {"prompt": prompt, "guided_regex": "[A-Za-z]*"})]


def _judged(answer: bytes, how: str, expected: str) -> str:
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b" 429 " in head[:20]:
        return "full"
    if how == "bad field":
        return "refused as it should" if b" 400 " in head[:20] and b'"param":"n"' in rest else "wrong"
    if how == "whole":
        text = _text(json.loads(rest)) if b" 200 " in head[:20] else None
    else:
        events = [json.loads(line[6:]) for line in rest.splitlines() if line.startswith(b"data: {")]
        text = "".join(map(_text, events)) if b"[DONE]" in rest else None
    return "right" if text == expected else "wrong"


def _text(said: dict[str, Any]) -> str:
    """The text in an answer, or in a piece of one."""
    choice = (said.get("choices") or [{}])[0]
    return (choice.get("message") or choice.get("delta") or {}).get("content") or choice.get("text") or ""


async def _drain(args: argparse.Namespace, own: subprocess.Popen[bytes], counts: Counter[str]) -> float:
    """How long the server takes to end while the crowd is still there."""
    crowd = asyncio.create_task(_crowd(args, Counter(), 1.0))
    await asyncio.sleep(0.5)
    began = time.monotonic()
    own.send_signal(signal.SIGTERM)
    await asyncio.to_thread(own.wait, 60)
    took = time.monotonic() - began
    crowd.cancel()
    return took


def _state(args: argparse.Namespace) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{args.port}/metrics", timeout=10) as answer:
        page = answer.read().decode()

    def total(name: str) -> float:
        return sum(float(each) for each in re.findall(rf"^{name}{{.*}} (\S+)$", page, re.MULTILINE))

    status = Path(f"/proc/{args.pid}/status").read_text() if args.pid else "VmRSS: 0 kB"
    return {"running": total("zonda_sequences_running"), "waiting": total("zonda_sequences_waiting"),
            "pages": total("zonda_kv_cache_blocks_used"), "kb": int(re.findall(r"VmRSS:\s+(\d+)", status)[0]),
            "files": len(os.listdir(f"/proc/{args.pid}/fd")) if args.pid else 0}


def _await_health(port: int) -> None:
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    sys.exit(main())
