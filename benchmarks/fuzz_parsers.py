"""Feed damaged GGUF and safetensors files to the parsers for a while; anything but a Zonda error is a crash.

    python benchmarks/fuzz_parsers.py --seconds 600

With atheris installed, coverage guides the damage; otherwise it is random. A file that crashes a parser, takes a
second or much memory is kept in the folder of `--keep`, and the exit status is 1.
"""
from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from zonda.errors import ZondaError
from zonda.weights.gguf import GGUFSource
from zonda.weights.safetensors import SafetensorsSource

CONFIG = {"architectures": ["Phi3ForCausalLM"], "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 32}
SLOW = 1.0
"""Seconds of processor time for one small file."""
MEMORY = 256 << 20
"""Growth of the peak memory over the whole run, in bytes."""
NUMBERS = [0, 1, 2, 3, 7, 8, 9, 12, 30, 31, 32, 255, 1 << 15, 1 << 16, 1 << 20, (1 << 20) + 1, 1 << 24, (1 << 24) + 1,
           1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 32, (1 << 64) - 1]
WORDS = [b"general.alignment", b"general.architecture", b"split.count", b"llama", b"phi3", b"blk.0.attn_q.weight",
         b"data_offsets", b"shape", b"dtype", b"F32", b"BF16", b"__metadata__", b"-1", b"1e9", b"null", b"[]", b"{}",
         b"[[[["]


@dataclass
class Tally:
    """What became of the files so far."""

    runs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_seed() -> bytes:
    """A small valid file with every kind of value and several kinds of tensors."""
    def pair(key: bytes, type: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", type) + value

    def array(type: int, count: int, data: bytes) -> bytes:
        return struct.pack("<IQ", type, count) + data

    pairs = [pair(b"general.architecture", 8, text(b"llama")), pair(b"general.alignment", 4, struct.pack("<I", 32)),
             pair(b"llama.attention.head_count", 4, struct.pack("<I", 2)), pair(b"flag", 7, b"\1"),
             pair(b"llama.embedding_length", 10, struct.pack("<Q", 32)), pair(b"f", 6, struct.pack("<f", 0.5)),
             pair(b"tokens", 9, array(8, 3, text(b"a") + text(b"bc") + text("é".encode()))),
             pair(b"scores", 9, array(6, 3, struct.pack("<3f", 1, 2, 3))), pair(b"flags", 9, array(7, 2, b"\0\1"))]
    shapes = [(b"token_embd.weight", 0, (32, 4), 512), (b"blk.0.attn_q.weight", 2, (32, 32), 576),
              (b"blk.0.attn_k.weight", 1, (32, 32), 2048), (b"blk.0.ffn_up_exps.weight", 8, (32, 2, 2), 136),
              (b"blk.0.ffn_down.weight", 12, (256, 2), 288), (b"output_norm.weight", 30, (32,), 64)]
    infos, offset = b"", 0
    for name, type, shape, size in shapes:
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type, offset)
        offset += -(-size // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(pairs)) + b"".join(pairs) + infos
    return head + bytes(-len(head) % 32) + bytes(offset)


def safetensors_seed() -> bytes:
    """A small valid file with fused tensors and experts."""
    shapes = {"model.layers.0.self_attn.qkv_proj.weight": ("F32", [64, 2]), "model.norm.weight": ("BF16", [4]),
              "model.layers.0.mlp.experts.0.up_proj.weight": ("F16", [2, 4]), "lm_head.weight": ("F64", [2]),
              "model.layers.0.mlp.experts.1.up_proj.weight": ("F16", [2, 4]), "ids": ("I64", [1])}
    sizes, header, at = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8}, {}, 0
    for name, (dtype, shape) in shapes.items():
        end = at + sizes[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    packed = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(packed)) + packed + bytes(at)


def damage(data: bytes, rng: random.Random) -> bytes:
    """A few random changes: bits, numbers, words, cuts, copies."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) or 1)
        change = rng.randrange(7)
        if change == 0 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif change == 1:
            found[at:at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif change == 2:
            found[at:at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
        elif change == 3:
            word = rng.choice(WORDS)
            found[at:at + rng.choice((0, len(word)))] = word
        elif change == 4:
            del found[at:at + rng.choice((1, 4, 8, 100, len(found)))]
        elif change == 5:
            other = rng.randrange(len(found) or 1)
            found[at:at] = found[other:other + rng.randrange(1, 80)]
        else:
            found[at:at + 3] = str(rng.choice(NUMBERS)).encode()
    return bytes(found)


class Target:
    """One parser: writes the bytes to a file, opens it and reads every tensor."""

    def __init__(self, folder: Path, name: str, open_source: Callable[[Path], GGUFSource | SafetensorsSource]) -> None:
        self.path = folder / name
        self.open_source = open_source

    def __call__(self, data: bytes) -> str:
        self.path.write_bytes(data)
        try:
            source = self.open_source(self.path)
        except ZondaError as error:
            return type(error).__name__
        for name in source.names():
            try:
                values = source.read(name).dense()
                assert values.dtype == np.float32 and values.nbytes < 1 << 24
            except ZondaError:
                continue
        return "read"


def attempt(target: Target, data: bytes, tally: Tally, keep: Path) -> None:
    """Run one file and note what became of it."""
    began = time.process_time()
    try:
        tally.outcomes[f"{target.path.suffix[1:]}: {target(data)}"] += 1
    except Exception as error:
        note(target, data, f"{type(error).__name__}: {error}", tally, keep)
    took = time.process_time() - began
    tally.runs += 1
    tally.slowest = max(tally.slowest, took)
    if took > SLOW:
        note(target, data, f"took {took:.2f} s", tally, keep)


def note(target: Target, data: bytes, problem: str, tally: Tally, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    name = f"{hashlib.sha256(data).hexdigest()[:16]}{target.path.suffix}"
    (keep / name).write_bytes(data)
    tally.failures.append(f"{name}: {problem}")
    print(f"{keep / name}: {problem}", file=sys.stderr)


def targets(folder: Path) -> list[tuple[Target, bytes]]:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return [(Target(folder, "x.gguf", GGUFSource), gguf_seed()),
            (Target(folder, "model.safetensors", lambda path: SafetensorsSource(path.parent)), safetensors_seed())]


def fuzz_randomly(seconds: float, seed: int, tally: Tally, keep: Path) -> None:
    """Damage files that got far, so that damage adds up."""
    rng, end = random.Random(seed), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch:
        pools = [(target, [data]) for target, data in targets(Path(scratch))]
        while time.monotonic() < end:
            for target, pool in pools:
                data = damage(rng.choice(pool), rng)
                before = Counter(tally.outcomes)
                attempt(target, data, tally, keep)
                new = next(iter(tally.outcomes - before), "")
                if new.endswith("read") and len(data) < 1 << 14:
                    pool.append(data)
                    del pool[1:-200]


def fuzz_guided(seconds: float, tally: Tally, keep: Path) -> NoReturn:
    """Let coverage choose the damage; the first byte chooses the parser. Ends the process, as libFuzzer would."""
    import atheris

    end, before = float("inf"), 0

    def run(data: bytes) -> None:
        if data:
            attempt(pairs[data[0] % len(pairs)][0], data[1:], tally, keep)
        if time.monotonic() > end:
            status = report(tally, before)
            sys.stdout.flush()
            shutil.rmtree(scratch, ignore_errors=True)
            os._exit(status)

    with tempfile.TemporaryDirectory() as scratch:
        pairs = targets(Path(scratch))
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for number, (_, data) in enumerate(pairs):
            (corpus / str(number)).write_bytes(bytes([number]) + data)
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], "-max_len=16384", "-verbosity=0", str(corpus)], run)
        end, before = time.monotonic() + seconds, peak()
        atheris.Fuzz()
    raise AssertionError("libFuzzer ended by itself")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--random", action="store_true", help="do not use atheris")
    options = parser.parse_args()
    tally, before = Tally(), peak()
    if importlib.util.find_spec("atheris") and not options.random:
        fuzz_guided(options.seconds, tally, options.keep)
    fuzz_randomly(options.seconds, options.seed, tally, options.keep)
    return report(tally, before)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def report(tally: Tally, before: int) -> int:
    grown = peak() - before
    if grown > MEMORY:
        tally.failures.append(f"memory grew by {grown >> 20} MiB")
    print(f"{tally.runs} files, {len(tally.failures)} failures, slowest {tally.slowest:.3f} s, "
          f"memory +{grown >> 20} MiB")
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"  {outcome}: {count}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
