"""What do hostile schemas and grammars do to a server and its other clients?

    python benchmarks/hostile_grammars.py --model MODEL [--clients 4] [--rounds 2] [--json]

A server is started. So many clients of one API key send bombs, each in variants of its own; meanwhile another key asks
for answers in quick and in harder forms, new ones each time, and health is asked all the while. Exit status 1 if a
bomb was answered with something else than 200 or 400, or took too long, if another client was refused, or if the
process grew beyond bounds.
"""
from __future__ import annotations

import argparse
import http.client
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from traffic import free_port

LONGEST = 60.0  # seconds for one bomb, in its turn among others
GROWTH = 1500  # MB that the server may grow by
Form = tuple[str, Any]


def chained(count: int, link: Callable[[str], Any]) -> Any:
    return {"$ref": "#/$defs/d0", "$defs": {**{f"d{i}": link(f"#/$defs/d{i + 1}") for i in range(count)},
                                            f"d{count}": {"type": "null"}}}


def bombs(salt: str) -> dict[str, Form]:
    """Each in a form that was not seen before."""
    pattern, lark = "guided_regex", "guided_grammar"
    schemas: dict[str, Any] = {
        "nested counts": {"pattern": f"^((({salt}[a-z]{{50}}){{50}}){{50}}){{50}}$"},
        "unicode properties": {"pattern": rf"^(\p{{L}}|\p{{N}}){{1,400}}{salt}(\p{{Lu}}\P{{Ll}}){{400}}$"},
        "many states": {"pattern": f"^(.*{salt}.{{300}}|.*b.{{301}}|.*c.{{302}})$"},
        "intersections": {"allOf": [{"pattern": f"{chr(97 + i)}.{{{i + 30}}}{salt}"} for i in range(14)]},
        "a pattern and a length": {"pattern": f"(a|b|ab)*{salt}(a|ba)*", "minLength": 4000, "maxLength": 5000},
        "steps": {"allOf": [{"multipleOf": 9973 - i} for i in range(40)], "title": salt},
        "a tiny step": {"multipleOf": 1e-300, "title": salt},
        "a huge enum": {"enum": [f"{salt}{i}" for i in range(25_000)]},
        "an enum of numbers": {"enum": [*range(60_000)], "title": salt},
        "deep nesting": json.loads('{"items":' * 900 + f'{{"title":"{salt}"}}' + "}" * 900),
        "10 MB": {"description": salt * (10_000_000 // len(salt))},
        "many properties": {"properties": {f"{salt}{i}": {"type": "string"} for i in range(990)}},
        "properties of properties": {"properties": {f"{salt}{i}": {"properties": {
            f"p{j}": {} for j in range(60)}} for i in range(100)}},
        "required by thousands": {"required": [f"{salt}{i}" for i in range(20_000)]},
        "doubling references": chained(28, lambda ref: {"allOf": [{"$ref": ref}, {"$ref": ref}], "title": salt}),
        "a chain": chained(3900, lambda ref: {"properties": {salt: {"$ref": ref}}, "required": [salt]}),
        "a circle of all": {"allOf": [{"$ref": "#"}, {"properties": {salt: {"$ref": "#"}}}]},
        "circles in circles": {"$defs": {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{j}"} for j in range(40)]}
                                         for i in range(40)}, "$ref": "#/$defs/n0", "title": salt},
        "a product": {"allOf": [{"anyOf": [{"properties": {f"{salt}{i}{j}": {}}} for j in range(4)]}
                                for i in range(14)]},
        "one of many": {"oneOf": [{"required": [f"{salt}{i}"]} for i in range(200)]},
        "conditions": {"allOf": [{"if": {"required": [f"{salt}{i}"]}, "then": {"required": [f"q{i}"]}}
                                 for i in range(60)]},
        "not in not": {"not": {"anyOf": [{"not": {"properties": {f"{salt}{i}": {"not": {"minimum": i}}}}}
                                         for i in range(12)]}},
        "patterns of names": {"patternProperties": {f"^(.*{chr(97 + i)}.{{{i + 30}}}){salt}$": {} for i in range(8)}},
        "huge counts": {"type": "array", "minItems": 2**31, "items": {"type": "string", "minLength": 2**31},
                        "title": salt},
        "unique values": {"type": "array", "uniqueItems": True, "items": {"enum": [f"{salt}{i}" for i in range(900)]}},
        "unique anything": {"uniqueItems": True, "minItems": 3, "items": {"uniqueItems": True, "minItems": 3,
                                                                          "title": salt}},
        "unique everywhere": {"$defs": {f"n{i}": {"uniqueItems": True, "anyOf": [
            {"items": {"$ref": f"#/$defs/n{j}"}} for j in range(30)]} for i in range(30)}, "$ref": "#/$defs/n0",
            "title": salt},
        "steps that multiply": {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}}
    return {**{name: ("guided_json", {**schema, "x": salt}) for name, schema in schemas.items()},
            "stars": (pattern, f"((((a*)*)*)*{salt})*b"), "optionals": (pattern, "(a?){900}" + "a" * 900 + salt),
            "any case": (pattern, f"(?i)({salt}|" + "|".join(f"straße{i}" for i in range(800)) + r")(\w{1,90}){9}"),
            "classes": (pattern, rf"[\p{{Greek}}\p{{Cyrillic}}--\p{{Lu}}]{{900}}{salt}|\w{{999}}"),
            "ambiguity": (lark, f'start: s\ns: s s | s s s | s s s s | "a" | "aa" | "{salt}" |'),
            "empty loops": (lark, f'start: a "{salt}"?\na: b a | c\nb: c b |\nc: a |\n'),
            "loops of loops": (lark, f'start: ((("a"*)*)* "{salt}"*)*'),
            "repeats": (lark, f'start: x{{1,30000}}\nx: y{{0,3000}}\ny: "{salt}"?'),
            "many optional": (lark, "start: " + "a? " * 9000 + f'\na: "{salt}"'),
            "complements": (lark, "start: T\nT: " + " & ".join(f"~/.*{chr(97 + i)}.{{{20 + i}}}{salt}.*/"
                                                               for i in range(12))),
            "doubling terminals": (lark, "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(50))
                                   + f'\nR50: "{salt}"\nstart: R0'),
            "deep brackets": (lark, "start: " + "(" * 50_000 + f'"{salt}"' + ")" * 50_000),
            "a schema within": (lark, 'start: %json {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]} '
                                + f'"{salt}"'),
            "choices": ("guided_choice", [f"{salt}{i}" for i in range(9_999)])}


class Server:
    """A server of its own, asked as the holder of a key."""

    def __init__(self, model: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen([
            sys.executable, "-m", "zonda", "serve", "-m", model, "--port", str(self.port), "--no-access-log",
            "--api-key", "bad", "--api-key", "good"], stderr=subprocess.DEVNULL)
        while self.ask("GET", "/health", None, "good")[0] != 200:
            if self.process.poll() is not None:
                raise SystemExit("the server has not started")
            time.sleep(0.2)

    def ask(self, method: str, path: str, body: Any, key: str) -> tuple[int, float]:
        """The status, 0 if there was none, and the seconds until it was there with all that followed."""
        began, status = time.perf_counter(), 0
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {
                "Authorization": f"Bearer {key}", "Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            status = reply.status
        except OSError:
            pass
        finally:
            connection.close()
        return status, time.perf_counter() - began

    def complete(self, form: Form, key: str) -> tuple[int, float]:
        return self.ask("POST", "/v1/completions", {"prompt": "x", "max_tokens": 40, "temperature": 1.5,
                                                    form[0]: form[1]}, key)

    def megabytes(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) >> 10 if found else 0


def repeat(stop: threading.Event, pause: float, ask: Callable[[int], tuple[int, float]]) -> list[tuple[int, float]]:
    """Ask again and again until told to stop."""
    found = []
    for number in itertools.count():
        found.append(ask(number))
        if stop.wait(pause):
            return found
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    server = Server(options.model)
    try:
        return attack(server, options)
    finally:
        server.process.terminate()
        server.process.wait()


def attack(server: Server, options: argparse.Namespace) -> int:
    """Send the bombs, and print what became of all."""
    server.complete(("guided_regex", "warm"), "good")
    server.complete(("guided_grammar", 'start: "warm"'), "good")
    before, stop = server.megabytes(), threading.Event()
    work = [(name, form) for number in range(options.rounds) for name, form in bombs(f"k{number}").items()]
    with ThreadPoolExecutor(options.clients) as hostile, ThreadPoolExecutor(3) as others:
        health = others.submit(repeat, stop, 0.05, lambda _: server.ask("GET", "/health", None, "good"))
        quick = others.submit(repeat, stop, 0.3, lambda number: server.complete(
            ("guided_json", {"type": "object", "properties": {f"p{number}": {"type": "integer"}}}), "good"))
        harder = others.submit(repeat, stop, 0.3, lambda number: server.complete(
            ("guided_json", {"type": "string", "pattern": f"^[a-z]{{1,9}}{number}$"}), "good"))
        got = list(hostile.map(lambda each: (each[0], *server.complete(each[1], "bad")), work))
        stop.set()
    slowest = max(got, key=lambda each: each[2])
    told = {"bombs": dict(Counter(str(status) for _, status, _ in got)), "slowest": slowest[0],
            "slowest_s": round(slowest[2], 1), "grown_mb": server.megabytes() - before,
            **{f"{name}_{what}": value for name, found in (("health", health), ("quick", quick), ("harder", harder))
               for what, value in _told(found.result()).items()}}
    wrong = [(name, status, round(seconds, 1)) for name, status, seconds in got
             if status not in (200, 400) or seconds > LONGEST]
    print(json.dumps(told) if options.json else "\n".join(f"{name:14} {value}" for name, value in told.items()))
    for each in wrong:
        print("wrong:", *each)
    return int(bool(wrong) or told["grown_mb"] > GROWTH
               or any({*told[f"{name}_statuses"]} != {"200"} for name in ("health", "quick", "harder")))


def _told(found: list[tuple[int, float]]) -> dict[str, Any]:
    seconds = sorted(took for _, took in found)
    return {"statuses": dict(Counter(str(status) for status, _ in found)), "most_s": round(seconds[-1], 2),
            "median_s": round(seconds[len(seconds) // 2], 3)}


if __name__ == "__main__":
    sys.exit(main())
