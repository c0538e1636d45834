"""From a model's name to a running engine with its texts: files, source, plan of memory, decoder, runner, engine."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zonda.engine.engine import Engine
from zonda.engine.runner import Runner
from zonda.environment import cache_folder, hub_token
from zonda.errors import InvalidRequest, ModelNotFound, OutOfMemory, Unsupported
from zonda.gpu import cache_bytes, device_of, left_on, on_gpu
from zonda.kernels import sample
from zonda.kernels.cpu.frame import HEAD
from zonda.memory import available, mb
from zonda.models import build, named
from zonda.nn import Decoder
from zonda.options import EngineOptions, ModelOptions
from zonda.types import Progress
from zonda.weights.load import Convert
from zonda.weights.source import Source

if TYPE_CHECKING:
    from zonda.models.config import Config
    from zonda.text.template import ChatTemplate
    from zonda.text.tokenizer import Tokenizer
    from zonda.texts import Texts
    from zonda.weights.choose import Kind
    from zonda.weights.hub import Files

_SHARE = 0.5  # of free memory, for the cache, unless an option says otherwise
_GPU_SHARE = 0.9  # the same on a GPU
_SEQUENCES = 4  # of full length that the cache has room for, if memory allows
_USUAL = 1024  # positions of each of `max_seqs` sequences that it has room for, if memory allows
_PLAIN_PAGE = 16  # positions
_log = logging.getLogger("zonda")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a loaded model is made of. `defaults` are its generation_config."""

    name: str
    engine: Engine
    tokenizer: Tokenizer
    template: ChatTemplate | None
    defaults: Mapping[str, Any]


def resolve_model(model: ModelOptions, *, refresh: bool = False, progress: bool = False) -> Files:
    """The local files of the model that the options name, downloaded if need be."""
    from zonda.weights.hub import resolve

    return resolve(model.model, file=model.file, format=model.format, quant=model.quant, revision=model.revision,
                   cache_dir=model.cache_dir, refresh=refresh, progress=progress, token=hub_token(model.token_source))


def quantized(model: ModelOptions, kind: Kind) -> ModelOptions:
    """The same where a checkpoint has no files to choose among: then `quant` says what to quantize to while loading."""
    if kind == "gguf" or model.quant is None:
        return model
    if model.isq is not None:
        raise InvalidRequest("quant and isq exclude each other for safetensors files", param="isq")
    return replace(model, isq=model.quant)


def load_model(model: ModelOptions, options: EngineOptions, *, progress: Progress | None = None) -> Parts:
    """Everything that answers requests, from the files that the options name."""
    from zonda.weights.hub import open_source, resolve_texts

    in_situ(model)  # is there such a format?
    device_of(model)  # and does what is asked for go together?
    architecture = model.arch and named(model.arch)
    files = resolve_model(model, progress=progress is not None)
    model, root = quantized(model, files.kind), files.root
    convert = in_situ(model)
    if model.tok_model:
        root = resolve_texts(model.tok_model, cache_dir=model.cache_dir, progress=progress is not None,
                             token=hub_token(model.token_source))
    own = files.kind == "safetensors" or root != files.root
    with ThreadPoolExecutor(1) as beside:
        beside.submit(import_module, "zonda.engine.cpu_runner")
        source = open_source(files, architecture=architecture)
        reading = beside.submit(_read_texts, model, root, source.metadata, own)
        engine = start(source, model, options, texts=reading.result, progress=progress, convert=convert,
                       weight_bytes=_weight_bytes(files.kind, _stored(files), model))
    texts = reading.result()
    return Parts(files.name, engine, texts.tokenizer, texts.template, texts.defaults)


def forecast(model: ModelOptions, options: EngineOptions) -> Sized:
    """What the model would take of this machine's memory. Reads no weights; raises `OutOfMemory` if it does not fit."""
    with _foreseen(model) as (kind, source, stored):
        model = quantized(model, kind)
        return size(source, model, options, weight_bytes=_weight_bytes(kind, stored, model))


def forecasts(model: ModelOptions, options: EngineOptions, formats: Sequence[str | None]) -> list[Sized | OutOfMemory]:
    """The same if the model is quantized to each of these formats while it is loaded, None for not at all."""
    def sized(isq: str | None) -> Sized | OutOfMemory:
        to = replace(model, isq=isq)
        try:
            return size(source, to, options, weight_bytes=in_situ_bytes(stored, to))
        except OutOfMemory as error:
            return error

    with _foreseen(model) as (kind, source, stored):
        if kind == "gguf":
            raise Unsupported("GGUF files are quantized already",
                              hint="choose among them by --quant; `zonda plan` tells what one takes")
        return list(map(sized, formats))


@contextmanager
def _foreseen(model: ModelOptions) -> Iterator[tuple[Kind, Source, int]]:
    """The kind of a model's files, what they say of it, and their bytes; weights are not downloaded."""
    from zonda.weights.hub import foresee, open_source

    architecture = model.arch and named(model.arch)
    with TemporaryDirectory(ignore_cleanup_errors=True) as headers:
        ahead = foresee(model.model, file=model.file, format=model.format, quant=model.quant, revision=model.revision,
                        cache_dir=model.cache_dir, headers=Path(headers), token=hub_token(model.token_source))
        if ahead and ahead.kind == "gguf":
            from zonda.weights.gguf import GGUFSource

            yield ahead.kind, GGUFSource(ahead.files), ahead.size
        elif ahead:
            from zonda.weights.random import RandomSource

            config = shape_config(str(ahead.files[0])) | ({"architectures": [architecture]} if architecture else {})
            yield ahead.kind, RandomSource(config, "bf16"), ahead.size
        else:
            files = resolve_model(model, progress=True)
            yield files.kind, open_source(files, architecture=architecture), _stored(files)


def _weight_bytes(kind: Kind, stored: int, model: ModelOptions) -> int:
    return in_situ_bytes(stored, model) if kind == "safetensors" else stored


def _stored(files: Files) -> int:
    return sum(path.stat().st_size for path in files.weights)


def _read_texts(model: ModelOptions, root: Path, metadata: Mapping[str, Any], own: bool) -> Texts:
    from zonda.texts import Texts

    return Texts.read(model, root, metadata, own=own)


@dataclass(frozen=True, slots=True)
class Plan:
    """The cache: positions of one sequence, and bytes of all pages."""

    max_len: int
    kv_bytes: int
    position_bytes: int
    """What one position takes of it."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A model and what it takes of a device's memory, in bytes; `free` is what the weights leave of it."""

    device: str
    options: EngineOptions
    config: Config
    decoder: Decoder
    weight_bytes: int
    free: int
    cache: Plan


def position_bytes(decoder: Decoder, device: str, model: ModelOptions) -> int:
    """Bytes that one position of a sequence takes of the device's cache."""
    size, multiple = (2, HEAD) if device == "cpu" else (cache_bytes(model, device), 1)
    return sum(cache.position_bytes(size, multiple=multiple) for cache in decoder.caches)


def plan(token: int, context: int, options: EngineOptions, *, free: int, share: float = _SHARE) -> Plan:
    """Size the cache for `free` bytes, where a position takes `token`.

    Raises `OutOfMemory` with the arithmetic when `max_seq_len` does not fit.
    """
    wanted = options.max_seq_len or context
    positions = max(max(wanted, context) * _SEQUENCES, (options.max_seqs or 0) * _USUAL)
    budget = _budget(token, token * positions, options, int(free * share), free)
    fitting = budget // token
    if options.max_seq_len and fitting < wanted:
        raise OutOfMemory(f"{wanted} positions of {token / 1024:.0f} KB need {mb(wanted * token)}, but the cache has "
                          f"{mb(budget)} of {mb(free)} free",
                          hint=f"ask for at most {fitting} by --max-seq-len, or give more by --kv-memory-mb")
    return Plan(min(wanted, fitting), budget, token)


def _budget(token: int, plenty: int, options: EngineOptions, usual: int, free: int) -> int:
    given = [name for name in ("kv_memory_mb", "kv_memory_fraction", "kv_tokens") if getattr(options, name)]
    if len(given) > 1:
        raise InvalidRequest(f"{given[0]} and {given[1]} exclude each other", param=given[1])
    if options.kv_tokens:
        return token * options.kv_tokens
    if options.kv_memory_mb:
        return options.kv_memory_mb << 20
    if options.kv_memory_fraction:
        return int(free * options.kv_memory_fraction)
    return min(usual, plenty)


def in_situ(model: ModelOptions) -> Convert | None:
    """The rule by which weights are quantized while they are loaded; raises `InvalidRequest` for unknown formats."""
    if model.isq is None:
        if model.isq_embeddings and model.quant is None:
            raise InvalidRequest("`isq_embeddings` needs `isq`", hint="name a format by --isq", param="isq_embeddings")
        return None
    from zonda.weights.quantize import InSitu, format_of

    return InSitu(format_of(model.isq), embeddings=model.isq_embeddings, threads=model.threads)


def in_situ_bytes(stored: int, model: ModelOptions) -> int:
    """Bytes that weights of 16 bits take once they are quantized, about."""
    if model.isq is None:
        return stored
    from zonda.weights.quantize import bytes_a_weight, format_of

    return int(stored * bytes_a_weight(format_of(model.isq)) / 2)


def size(source: Source, model: ModelOptions, options: EngineOptions, *, weight_bytes: int = 0) -> Sized:
    """Choose the device and plan its memory; raises `OutOfMemory` with the arithmetic if the model does not fit."""
    device = device_of(model)
    options = options.filled() if device == "cpu" else options.filled(256, 8192)
    config, decoder = build(source)
    if device == "cpu":
        free = _left(weight_bytes)
    else:
        free = left_on(device, decoder, weight_bytes, model, source.metadata)
    cache = plan(position_bytes(decoder, device, model), config.context, options, free=free,
                 share=_SHARE if device == "cpu" else _GPU_SHARE)
    if cache.max_len != config.max_len:
        config, decoder = build(source, max_len=cache.max_len)
    return Sized(device, options, config, decoder, weight_bytes, free, cache)


def start(source: Source, model: ModelOptions, options: EngineOptions, *, texts: Callable[[], Texts] | None = None,
          convert: Convert | None = None, weight_bytes: int = 0, progress: Progress | None = None) -> Engine:
    """An engine that runs a checkpoint on the device that the options name, or that this machine has.

    `convert` sets the formats of its weights; `texts` is asked when the weights are there.
    """
    sized = size(source, model, options, weight_bytes=weight_bytes)
    config, decoder, options, cache = sized.config, sized.decoder, sized.options, sized.cache
    if options.max_seq_len is None and cache.max_len < config.context:
        _log.warning("the context is %d positions, not the model's %d: the cache has %s", cache.max_len,
                     config.context, mb(cache.kv_bytes))
    tell = progress or _silent
    if sized.device != "cpu":
        runner, draw = on_gpu(sized.device, decoder, source, options, model, max_len=cache.max_len,
                              kv_bytes=cache.kv_bytes, convert=convert, tell=tell)
    elif model.kernels == "compiled":
        runner, draw = _compiled(decoder, source, cache, options, model.threads, convert, tell)
    else:
        runner, draw = _plain(decoder, source, cache, options, convert, tell)
    try:
        said = texts() if texts else None
        if said is None:
            return Engine(runner, options, stop_ids=config.eos, kernel=draw)
        return Engine(runner, options, stop_ids=config.eos | said.ends, defaults=said.defaults,
                      breakers=said.breakers, words=said.tokenizer, kernel=draw)
    except BaseException:
        runner.close()
        raise


def _compiled(decoder: Decoder, source: Source, cache: Plan, options: EngineOptions, threads: int | None,
              convert: Convert | None, tell: Progress) -> tuple[Runner, sample.Kernel]:
    from zonda.engine.cpu_runner import CPURunner
    from zonda.kernels.cpu.draws import CompiledDraw

    tell("loading", 0, 0)
    runner = CPURunner(decoder, source, max_len=cache.max_len, kv_bytes=cache.kv_bytes, cache_folder=cache_folder(),
                       max_rows=options.max_num_batched_tokens or 0, threads=threads, convert=convert,
                       progress=lambda done, total: tell("loading", done, total), compiling=_Compiled(tell))
    return runner, CompiledDraw(runner.ops.library, vocab=runner.vocab)


def _plain(decoder: Decoder, source: Source, cache: Plan, options: EngineOptions, convert: Convert | None,
           tell: Progress) -> tuple[Runner, sample.Kernel]:
    from zonda.kernels.reference import ReferenceOps, ReferenceRunner
    from zonda.weights.load import load

    pages = cache.max_len * _SEQUENCES // _PLAIN_PAGE + 1
    load(decoder, source, ReferenceOps(pages=pages, page_size=_PLAIN_PAGE), convert=convert,
         progress=lambda done, total: tell("loading", done, total))
    return ReferenceRunner(decoder, max_len=cache.max_len, max_rows=options.max_num_batched_tokens or 0), sample.draw


def _left(weight_bytes: int) -> int:
    """Bytes that are free once the weights are in memory; raises `OutOfMemory` when they are too many."""
    free = available()
    if weight_bytes > free:
        raise OutOfMemory(f"the weights take {mb(weight_bytes)}, but {mb(free)} are free",
                          hint="choose a smaller file, perhaps by --quant 4, or close other programs")
    return free - weight_bytes


class _Compiled:
    """Counts kernels as they are compiled, once for this processor."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._count = 0

    def __call__(self, name: str) -> None:
        self._count += 1
        self._tell("compiling kernels, once", self._count, 0)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def start_random(shape: str, dtype: str, model: ModelOptions, options: EngineOptions, *,
                 progress: Progress | None = None) -> Engine:
    """An engine over random weights; `shape` is a known one's name, or a config.json or its folder."""
    from zonda.weights.random import RandomSource

    source = RandomSource(shape_config(shape), dtype, repeated=device_of(model) != "cpu" and model.isq is None)
    source.shape_of(build(source)[1])
    return start(source, model, options, convert=in_situ(model), progress=progress)


def shape_config(shape: str) -> dict[str, Any]:
    """The config.json that a shape's name, a file or a folder stands for."""
    from zonda.text.folder_tokenizer import read_json
    from zonda.weights.shapes import SHAPES

    if shape in SHAPES:
        return SHAPES[shape]
    path = Path(shape) / "config.json" if Path(shape).is_dir() else Path(shape)
    if not path.is_file():
        raise ModelNotFound(f"no shape and no config.json: {shape!r}", hint=f"known shapes: {', '.join(SHAPES)}")
    return read_json(path)
