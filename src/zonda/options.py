"""Every option of Zonda, stated once: command-line flags, TOML keys, keyword arguments and help derive from here."""
from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from zonda.environment import variable
from zonda.errors import InvalidRequest
from zonda.types import Effort, Sampling

T = TypeVar("T")


def option(default: Any, help: str, *, flags: tuple[str, ...] = (), off: tuple[str, ...] = (), env: str | None = None,
           metavar: str | None = None, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with its help text; its flags where they differ from its name, and those of other engines
    that turn it `off`; its variable; its range."""
    metadata = {"help": help, "flags": flags, "off": off, "env": env, "metavar": metavar, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model to load, and the files that go with it."""

    model: str | None = option(None, "the model: a file, a folder, a Hugging Face repository, or a built-in alias",
                               flags=("-m", "--model", "--model-id"), metavar="ID|PATH")
    file: tuple[str, ...] = option((), "weight file in the folder or repository, `;` between shards; alone, a path",
                                   flags=("-f", "--file", "--quantized-file"), metavar="FILE")
    format: Literal["plain", "gguf"] | None = option(None, "weight format; seen from the files unless given")
    quant: str | None = option(None, "pick the file of this bit width (2-8) or name (q4_k_m) from a GGUF repository; "
                               "of safetensors, quantize to it while loading", metavar="N|NAME")
    isq: str | None = option(None, "quantize the weights while loading, to q4k, q8_0, fp8, 4 and others",
                             flags=("--isq", "--in-situ-quant"), metavar="NAME|N")
    isq_embeddings: bool = option(False, "with --isq, quantize the table of token embeddings too")
    arch: str | None = option(None, "architecture of safetensors files (llama, qwen3, ...), where config.json names "
                              "none that is known", flags=("-a", "--arch"), metavar="NAME")
    revision: str | None = option(None, "branch, tag or commit of the Hugging Face repository", metavar="REV")
    tokenizer: str | None = option(None, "a tokenizer.json, or a folder that has one, instead of the model's own",
                                   flags=("-t", "--tokenizer"), metavar="PATH")
    tok_model: str | None = option(None, "repository or folder to take the tokenizer and chat template from",
                                   flags=("--tok-model", "--tok-model-id"), metavar="ID|PATH")
    chat_template: str | None = option(None, "chat template, a .jinja or .json file, before the model's own",
                                       flags=("-c", "--chat-template"), metavar="PATH")
    jinja_explicit: str | None = option(None, "chat template, a .jinja file, before everything else",
                                        flags=("-j", "--jinja-explicit"), metavar="PATH")
    tool_dialect: str | None = option(None, "format of tool calls (hermes, mistral, llama, ...); seen from the chat "
                                      "template unless given", flags=("--tool-dialect", "--tool-call-parser"),
                                      metavar="NAME")
    reasoning: str | None = option(None, "marks of reasoning (think, gemma, none, ...); seen from the chat template "
                                   "unless given", flags=("--reasoning", "--reasoning-parser"), metavar="NAME")
    cache_dir: str | None = option(None, "folder of the Hugging Face cache", flags=("--cache-dir", "--hf-cache"),
                                   metavar="DIR")
    token_source: str = option("cache", "where the hub's token comes from: cache (HF_TOKEN, or what was stored), "
                               "env:NAME, path:FILE, literal:TOKEN, or none", metavar="SPEC")
    threads: int | None = option(None, "threads that compute; all cores unless given", env="ZONDA_THREADS", low=1)
    cpu: bool = option(False, "compute on the processor, also where there is a GPU")
    device: str = option("auto", "where to compute: cpu, cuda, cuda:1, or auto for a GPU where there is one",
                         metavar="NAME")
    compute_dtype: Literal["auto", "bf16", "f16", "f32"] = option(
        "auto", "type of numbers on a GPU; auto is f16 or bf16, by the model", flags=("--compute-dtype", "--dtype"))
    kv_dtype: Literal["auto", "fp8"] = option("auto", "type of cached keys and values on a GPU")
    capture: Literal["all", "lazy"] = option("lazy", "capture a GPU's decode steps as graphs while loading, or "
                                             "each when it first comes or nothing is to be done")
    kernels: Literal["compiled", "plain"] = option("compiled", "compute by kernels compiled for this processor, or by "
                                                   "plain numpy, slow, to compare")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How many requests the engine serves at once, and the memory of their cache."""

    max_seqs: int | None = option(None, "sequences that run at the same time; default: 32, on a GPU 256", low=1)
    max_num_batched_tokens: int | None = option(None, "tokens of one step, over all sequences; default: 512, on a GPU "
                                                "8192", low=1)
    max_queue: int = option(1024, "sequences that may wait; more are refused with status 429", low=1)
    max_seq_len: int | None = option(None, "positions of one sequence; default: the model's context, as memory allows",
                                     low=1)
    kv_memory_mb: int | None = option(None, "memory of the key-value cache in MB; default: from what is free",
                                      flags=("--kv-memory-mb", "--pa-memory-mb"), low=1)
    kv_memory_fraction: float | None = option(None, "share of free memory that the key-value cache takes, 0 to 1",
                                              flags=("--kv-memory-fraction", "--pa-memory-fraction"), low=0, high=1)
    kv_tokens: int | None = option(None, "positions that the key-value cache holds, over all sequences",
                                   flags=("--kv-tokens", "--pa-context-len"), low=1)
    prefix_cache: bool = option(True, "reuse the cached pages of a shared beginning of prompts")
    prefix_cache_n: int | None = option(None, "if 0, the same as --no-prefix-cache; other numbers bound nothing, "
                                        "as only pages are kept that are free", low=0)
    seed: int = option(0, "seed from which requests without their own seed draw one")

    @property
    def reuses(self) -> bool:
        """Whether there is a prefix cache."""
        return self.prefix_cache and self.prefix_cache_n != 0

    def filled(self, seqs: int = 32, tokens: int = 512) -> EngineOptions:
        """The same with these where no size of a step is given."""
        return dataclasses.replace(self, max_seqs=self.max_seqs or seqs,
                                   max_num_batched_tokens=self.max_num_batched_tokens or tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How tokens are drawn where a request does not say."""

    max_tokens: int | None = option(None, "most tokens to generate", low=1)
    temperature: float | None = option(None, "randomness: 0 takes the likeliest token", low=0)
    top_k: int | None = option(None, "draw from this many likeliest tokens; 0 from all", low=0)
    top_p: float | None = option(None, "draw from the likeliest tokens of this total probability", low=0, high=1)
    min_p: float | None = option(None, "drop tokens less likely than this share of the likeliest", low=0, high=1)
    repetition_penalty: float | None = option(None, "divide the logits of tokens seen before; 1 is none", low=0)
    presence_penalty: float = option(0.0, "subtract from the logits of tokens generated before")
    frequency_penalty: float = option(0.0, "subtract, for each time generated before")
    stop: tuple[str, ...] = option((), "stop at this text; repeat for several", metavar="TEXT")
    ignore_eos: bool = option(False, "go on past the model's end-of-text token")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `zonda run` asks, and how."""

    input: str | None = option(None, "answer this text and exit; `-` reads standard input", flags=("-i", "--input"),
                               metavar="TEXT")
    system: str | None = option(None, "system message to begin with", metavar="TEXT")
    raw: bool = option(False, "continue the text as it stands, without a chat template")
    thinking: bool | None = option(None, "ask the chat template for reasoning, or for none")
    reasoning_effort: Effort | None = option(  # noqa: RUF009 - a field, as the others
        None, "how much to reason, for templates that know levels; all but off and none ask for reasoning")
    thinking_budget: int | None = option(None, "most tokens of reasoning, which is then ended; 0 for none", low=0)
    json_schema: str | None = option(None, "file with the JSON schema that answers must follow", metavar="FILE")
    regex: str | None = option(None, "regular expression that answers must match as a whole")
    log: str | None = option(None, "append what is asked and answered, in full, to this file, one JSON object a line",
                             flags=("-l", "--log"), metavar="FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What `zonda bench` measures."""

    prompt_len: tuple[int, ...] = option((512,), "prompt lengths to measure prefill at; 0 for none", low=0)
    gen_len: int = option(128, "tokens to generate; below 2 for no decode", low=0)
    depth: tuple[int, ...] = option((4,), "prompt lengths to measure decode after; 0 for none", low=0)
    iterations: int = option(3, "times to measure each case", low=1)
    warmup: int = option(1, "times to run each case before", low=0)
    concurrency: tuple[int, ...] = option((), "numbers of simultaneous streams to measure the total of", low=1)
    http: bool = option(False, "drive the streams through the HTTP server on loopback")
    random_weights: str | None = option(None, "no checkpoint: a shape's name, or a config.json or its folder; --quant "
                                        "gives the weights' format, f32 f16 bf16 fp8 q8_0 q4_k_m and others, else q4_0",
                                        metavar="CONFIG")
    json: bool = option(False, "one JSON object a line on standard output")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What `zonda tune` looks for, and where it tells that."""

    profile: Literal["quality", "balanced", "fast"] = option("balanced", "what matters most")
    emit_config: str | None = option(None, "write a file for `zonda from-config` that serves the model so",
                                     metavar="FILE")
    json: bool = option(False, "one JSON object on standard output, sizes in bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOptions:
    """Under which names a model is served, and when it is in memory."""

    name: str | None = option(None, "name that the model is served under; default: the file's or repository's",
                              flags=("--name", "--served-model-name"), metavar="NAME")
    alias: tuple[str, ...] = option((), "one more name that requests may use; repeat for several", metavar="NAME")
    preload: bool = option(True, "load the model at the start; else with its first request")
    keep: bool = option(False, "never unload the model for idleness or to make room for another")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where `zonda serve` listens, whom it lets in, and what it reports."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 or :: for every interface")
    port: int = option(1234, "port to listen on; 0 picks a free one", flags=("-p", "--port"), low=0, high=65535)
    api_key: tuple[str, ...] = option((), "a key that clients must send; repeat for several, or commas in the "
                                      "variable", env="ZONDA_API_KEY",
                                      metavar="KEY")
    api_key_file: str | None = option(None, "file with one key a line, read again when it changes; empty lines and "
                                      "those that begin with # do not count", env="ZONDA_API_KEY_FILE", metavar="FILE")
    max_per_key: int | None = option(None, "requests of one API key that may run at once; more are refused with "
                                     "status 429; default: no limit", low=1)
    tls_cert: str | None = option(None, "certificate chain, a PEM file, to serve https", metavar="FILE")
    tls_key: str | None = option(None, "private key of the certificate, a PEM file, if it is not in the same file",
                                 metavar="FILE")
    allowed_host: tuple[str, ...] = option((), "host name that requests may ask for; repeat; default: loopback names "
                                           "when listening on loopback, else any", metavar="NAME")
    cors_origin: tuple[str, ...] = option((), "web origin whose pages may call; repeat, or `*` for all; default: none",
                                          metavar="ORIGIN")
    max_body_mb: int = option(32, "largest request body in MB", low=1)
    max_header_kb: int = option(64, "most KB of a request's line and headers", low=1)
    receive_timeout: float = option(60.0, "seconds that headers, and each next piece of a body, may take to come, "
                                    "and in which a client may read nothing of its answer", low=0.01)
    load_wait: float = option(60.0, "seconds that a request waits for a model that is loading; then the answer is 503",
                              low=0)
    idle_unload: float | None = option(None, "seconds without a request after which a model is unloaded; default: "
                                       "never", low=0.01)
    request_timeout: float | None = option(None, "seconds that an answer may take, from the request's first byte; "
                                           "default: no limit", low=0.01)
    keep_alive: float = option(10.0, "seconds of silence after which a stream sends a comment, and a WebSocket a ping",
                               low=0.01)
    drain_timeout: float = option(30.0, "seconds that running requests get to finish when the server is told to stop",
                                  low=0)
    stall_timeout: float = option(120.0, "seconds without a finished step after which /health reports the engine stuck",
                                  low=0.01)
    stall_exit: float = option(300.0, "seconds without a finished step after which running requests get an error and "
                               "the process ends with status 70, to be started again", low=0.01)
    stored_responses: int = option(1000, "responses of /v1/responses that are kept in memory to be asked for again, "
                                   "as many chat completions and as many conversations; 0 keeps none", low=0)
    stored_mb: int = option(64, "memory of the kept responses in MB, of the chat completions and of the conversations; "
                            "the least used go first", low=1)
    stored_hours: float = option(24.0, "hours after which they are forgotten", low=0)
    socket_idle: float = option(900.0, "seconds that a WebSocket stays open after a response", low=0.01)
    socket_age: float = option(3600.0, "seconds after which a WebSocket is closed, when its response has ended",
                               low=0.01)
    access_log: bool = option(True, "log one line a request on standard error", off=("--disable-access-log",))
    access_log_format: Literal["text", "json"] = option("text", "form of the access log")
    log: str | None = option(None, "append what is asked and answered, in full, to this file, one JSON object a line",
                             flags=("-l", "--log"), metavar="FILE")
    log_prompts: bool = option(False, "log what was asked and answered too, up to 64 KB each")
    access_log_health: bool = option(False, "log requests to /health and /metrics too")
    request_id_header: bool = option(True, "tell a request's id in a header", off=("--disable-request-id-header",))
    metrics: bool = option(True, "serve /metrics", off=("--disable-metrics",))
    ui: bool = option(True, "serve the web UI at /ui")


# --- from the dataclasses to flags, tables and keywords ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One field, taken apart: what the command line, TOML and the docs need to know of it."""

    name: str
    type: type
    default: Any
    help: str
    many: bool = False
    optional: bool = False
    choices: tuple[Any, ...] = ()
    flags: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    env: str | None = None
    metavar: str | None = None
    low: float | None = None
    high: float | None = None

    @property
    def negations(self) -> tuple[str, ...]:
        """The flags that turn a switch off, our own first."""
        return (f"--no-{self.flags[0][2:]}", *self.off) if self.type is bool else ()


def options_of(group: type) -> tuple[Option, ...]:
    """The options of a dataclass, in order."""
    hints = typing.get_type_hints(group)
    return tuple(_option(field, hints[field.name]) for field in dataclasses.fields(group))


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    kind, optional, many, choices = _kind(hint)
    known = dict(field.metadata)
    flags = known.pop("flags", ()) or ("--" + field.name.replace("_", "-"),)
    return Option(field.name, kind, field.default, many=many, optional=optional, choices=choices, flags=flags, **known)


def _kind(hint: Any) -> tuple[type, bool, bool, tuple[Any, ...]]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        kind, _, many, choices = _kind(next(part for part in inner if part is not type(None)))
        return kind, True, many, choices
    if origin is Literal:
        return type(inner[0]), False, False, inner
    if origin is tuple:
        return inner[0], False, True, ()
    return hint, False, False, ()


def make(group: type[T], values: Mapping[str, Any]) -> T:
    """Build one group from checked values; what is absent or None comes from the environment or the default."""
    filled = {}
    for each in options_of(group):
        value = values.get(each.name)
        if value is None and each.env:
            value = variable(each.env)
            if value and each.many:
                value = [part.strip() for part in value.split(",") if part.strip()]
        if value is not None:
            filled[each.name] = _checked(each, value)
    return group(**filled)


def given(group: Any) -> dict[str, Any]:
    """The fields of an instance that differ from their defaults."""
    values = ((each, getattr(group, each.name)) for each in options_of(type(group)))
    return {each.name: value for each, value in values if value != each.default}


def split(values: Mapping[str, Any], *groups: type) -> list[Any]:
    """Build every group from one flat mapping; raises `InvalidRequest` for a name that none of them has."""
    reject_unknown(values, [each.name for group in groups for each in options_of(group)], where="option")
    return [make(group, values) for group in groups]


def sampling_of(values: Mapping[str, Any], *, base: Sampling) -> Sampling:
    """`base` with these fields set; one stop string may stand alone, lists become tuples, and None sets nothing."""
    fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()
                              if each is not None}
    if isinstance(fields.get("stop"), str):
        fields["stop"] = (fields["stop"],)
    return dataclasses.replace(base, **fields)


def reject_unknown(values: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Raise `InvalidRequest` for the first unknown name, with the nearest known one."""
    known = list(known)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            raise InvalidRequest(f"unknown {where} `{name}`", hint=hint, param=name)


def _checked(each: Option, value: Any) -> Any:
    if each.many:
        return tuple(_scalar(each, item) for item in (value if isinstance(value, list | tuple) else [value]))
    return _scalar(each, value)


def _scalar(each: Option, value: Any) -> Any:
    try:
        value = _converted(each, value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"`{each.name}` is {value!r:.80}, expected {each.type.__name__}",
                             param=each.name) from None
    if each.choices and value not in each.choices:
        known = ", ".join(map(str, each.choices))
        raise InvalidRequest(f"`{each.name}` is {value!r:.80}, expected one of {known}", param=each.name)
    if (each.low is not None and not value >= each.low) or (each.high is not None and not value <= each.high):
        raise InvalidRequest(f"`{each.name}` is {value}, expected {_range(each)}", param=each.name)
    return value


def _range(each: Option) -> str:
    if each.high is None:
        return f"at least {each.low}"
    return f"at most {each.high}" if each.low is None else f"{each.low} to {each.high}"


def _converted(each: Option, value: Any) -> Any:
    if each.type is bool or isinstance(value, bool):
        if each.type is bool and isinstance(value, bool):
            return value
        raise ValueError(value)
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str | int | float) or (each.type is int and isinstance(value, float)):
        raise ValueError(value)
    return each.type(value)
