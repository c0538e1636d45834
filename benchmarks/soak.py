"""Clients that connect, stream, stall and vanish at random, for a while; then: what has leaked, and does it drain?

    python benchmarks/soak.py --seconds 60                        # over a model that continues the alphabet
    python benchmarks/soak.py --seconds 600 --model FILE          # over a real one: right is what it says alone
    python benchmarks/soak.py --seconds 600 --port 1234 --pid PID # against a running server

They speak all protocols: chat and plain completions, messages, and responses, whole, streamed and in the background.
Exit status 1 when an answer was wrong, something was left behind, or draining took too long.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

from soak_questions import RESPONSES, Question, alphabet, learnt, streamed, text

WAYS = ("whole", "stream", "stream", "stall", "vanish", "vanish before", "half a body", "bad field", "background")
KEPT = 100  # responses, so few that their store is full before the first look
FAKE = f"""
import sys
sys.path.insert(0, sys.argv[1])
from fakes import model
from zonda.options import ServerOptions
from zonda.server import serve

serve(model(max_seqs=64), ServerOptions(port=0, access_log=False, stored_responses={KEPT}))
"""
PATIENCE = 60.0  # seconds until nobody is served, when some have left long answers to be written in the background
LOOKS = 20  # lines of the table over time


def main() -> int:
    args = _arguments()
    own = None
    if args.port is None:
        tests = Path(__file__).parent.parent / "tests" / "server"
        command = [sys.executable, "-c", FAKE, str(tests)]
        if args.model:
            command = [sys.executable, "-m", "zonda", "serve", "-m", args.model, "--port", "0", "--max-seqs", "64",
                       "--no-access-log", "--drain-timeout", "4", "--stored-responses", str(KEPT)]
        own = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        args.pid = own.pid
    try:
        if own:
            args.port = _listening(own)
        _await_health(args.port)
        args.questions = learnt(args.port) if args.model else alphabet()
        return asyncio.run(_soak(args, own))
    finally:
        if own and own.poll() is None:
            own.kill()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--drain", type=float, default=5, help="seconds that a server may take to end")
    parser.add_argument("--port", type=int, help="of a running server on this machine; else one is started")
    parser.add_argument("--model", help="a model to serve instead of the alphabet")
    parser.add_argument("--pid", type=int, help="its process, to watch memory and open files")
    return parser.parse_args()


async def _soak(args: argparse.Namespace, own: subprocess.Popen[str] | None) -> int:
    counts: Counter[str] = Counter()
    await _crowd(args, counts, min(5.0, args.seconds / 4))  # memory and files as they are once all has been used
    before = await _settled(args)
    watch = asyncio.create_task(_watched(args, args.seconds / LOOKS))
    await _crowd(args, counts, args.seconds)
    watch.cancel()
    after = await _settled(args)
    wrong = [f"{name}: {before[name]} -> {after[name]}" for name, most in
             {"running": 0, "waiting": 0, "pages": before["pages"], "files": before["files"] + 4,
              "kb": before["kb"] * 1.1 + 8192}.items() if after[name] > most]
    wrong += [f"{counts['wrong']} answers were wrong"] if counts["wrong"] else []
    if own:
        seconds = await _drain(args, own, counts)
        print(f"drained in {seconds:.2f} s, exit status {own.returncode}")
        wrong += [f"draining took {seconds:.1f} s"] if seconds > args.drain or own.returncode else []
    print(dict(counts), f"before {before}", f"after {after}", sep="\n")
    print("failed: " + "; ".join(wrong) if wrong else "nothing was left behind")
    return bool(wrong)


async def _settled(args: argparse.Namespace) -> dict[str, float]:
    """The state once nobody is served any more, or after a while."""
    end = time.monotonic() + PATIENCE
    while True:
        await asyncio.sleep(0.2)
        state = _state(args)
        if not state["running"] + state["waiting"] + state["pages"] or time.monotonic() > end:
            return state


async def _watched(args: argparse.Namespace, pause: float) -> None:
    """Print the state over time."""
    began = time.monotonic()
    print("seconds", *(name.rjust(8) for name in _state(args)))
    while True:
        await asyncio.sleep(pause)
        state = await asyncio.to_thread(_state, args)
        print(f"{time.monotonic() - began:7.0f}", *(f"{value:8.0f}" for value in state.values()), flush=True)


async def _crowd(args: argparse.Namespace, counts: Counter[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    await asyncio.gather(*(_client(args.port, random.Random(number), end, counts, args.questions)
                           for number in range(args.clients)))


async def _client(port: int, dice: random.Random, end: float, counts: Counter[str],
                  questions: list[Question]) -> None:
    while time.monotonic() < end:
        question, how = dice.choice(questions), dice.choice(WAYS)
        if how == "background" and not _can_wait(question):
            continue
        counts[how] += 1
        try:
            ask = _in_background if how == "background" else _leaving if _leaves(how) else _staying
            if judgement := await ask(port, dice, how, question):
                counts[judgement] += 1
        except OSError:
            counts["refused"] += 1
            await asyncio.sleep(0.1)


def _leaves(how: str) -> bool:
    return how.startswith("vanish") or how == "half a body"


def _can_wait(question: Question) -> bool:
    return question.path == RESPONSES and question.fields.get("store", True)


async def _leaving(port: int, dice: random.Random, how: str, question: Question) -> None:
    """Ask for much, and leave, politely or not."""
    message = _message("POST", question.path, question.body(stream=True, **question.longer()))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message[:-50] if how == "half a body" else message)
        await asyncio.sleep(dice.random() * 0.2)
        if how == "vanish":
            await reader.read(200)
        if dice.random() < 0.5:
            writer.transport.abort()
    finally:
        writer.close()


async def _staying(port: int, dice: random.Random, how: str, question: Question) -> str:
    """Ask, read the answer to its end, after a pause if the client stalls, and judge it."""
    changes = {"temperature": 9} if how == "bad field" else {"stream": how != "whole"}
    status, rest = await _exchange(port, "POST", question.path, question.body(**changes),
                                   pause=dice.random() if how == "stall" else 0)
    if status == 429:
        return "full"
    if how == "bad field":
        return "refused as it should" if status == 400 and b"temperature" in rest else "wrong"
    found = None if status != 200 else text(json.loads(rest)) if how == "whole" else streamed(rest)
    return "right" if found == question.answer else "wrong"


async def _in_background(port: int, dice: random.Random, how: str, question: Question) -> str:
    """Have a response written in the background, then follow it, leave it, or cancel it."""
    status, rest = await _exchange(port, "POST", question.path, question.body(background=True))
    if status == 429:
        return "full"
    one, deed = f"{RESPONSES}/{json.loads(rest)['id']}", dice.choice(("follow", "leave", "cancel"))
    if deed == "leave":
        return "left to be written"
    path = ("GET", f"{one}?stream=true") if deed == "follow" else ("POST", f"{one}/cancel")
    status, rest = await _exchange(port, *path, pause=dice.random() if deed == "follow" else 0)
    if status == 404:
        return "forgotten"
    right = (streamed(rest) == question.answer if deed == "follow"
             else json.loads(rest)["status"] in ("cancelled", "completed"))
    return "right" if right else "wrong"


async def _exchange(port: int, method: str, path: str, body: bytes = b"", *, pause: float = 0) -> tuple[int, bytes]:
    """The status and the body of an answer, which is read after a pause in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_message(method, path, body))
        await asyncio.sleep(pause)
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        if not head:
            raise ConnectionResetError("closed without an answer")
        return int(head[9:12]), rest
    finally:
        writer.close()


def _message(method: str, path: str, body: bytes) -> bytes:
    return (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


async def _drain(args: argparse.Namespace, own: subprocess.Popen[str], counts: Counter[str]) -> float:
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


def _listening(own: subprocess.Popen[str]) -> int:
    """The port that a server has found for itself, from what it says; that and the rest is passed on."""
    assert own.stderr
    for line in own.stderr:
        sys.stderr.write(line)
        if found := re.search(r"^serving .* at http://127\.0\.0\.1:(\d+)/", line):
            threading.Thread(target=shutil.copyfileobj, args=(own.stderr, sys.stderr), daemon=True).start()
            return int(found[1])
    raise SystemExit("the server did not start")


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
