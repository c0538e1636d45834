"""Prometheus metrics: of the HTTP side, counted here, and of the engines, read from their statistics when asked."""
from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from zonda.engine import stats
    from zonda.server.call import Call
    from zonda.server.service import Service

SECONDS = (.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)
BYTES = (128, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 52428800, 104857600)
# metric -> field of the engine's statistics, and what it counts
GAUGES = {
    "zonda_sequences_running": ("running", "Sequences that are computed now"),
    "zonda_sequences_waiting": ("waiting", "Sequences in the queue"),
    "zonda_sequences_capacity": ("capacity", "Sequences that may run at once"),
    "zonda_kv_cache_blocks_used": ("pages_used", "Pages of the cache in use"),
    "zonda_kv_cache_blocks_total": ("pages_total", "Pages of the cache"),
    "zonda_last_step_age_seconds": ("last_step_age", "Seconds since the engine last moved, 0 when idle"),
}
COUNTERS = {
    "zonda_prompt_tokens": ("prompt_tokens", "Prompt tokens computed"),
    "zonda_cached_tokens": ("cached_tokens", "Prompt tokens taken from the prefix cache"),
    "zonda_generated_tokens": ("generated_tokens", "Tokens generated"),
    "zonda_prefix_cache_lookups": ("prefix_lookups", "Prompts looked up in the prefix cache"),
    "zonda_prefix_cache_hits": ("prefix_hits", "Prompts found in the prefix cache, in part at least"),
    "zonda_prefix_cache_evictions": ("prefix_evictions", "Pages dropped from the prefix cache"),
    "zonda_paged_preemptions": ("preemptions", "Sequences put back for want of pages"),
    "zonda_engine_steps": ("steps", "Steps"),
    "zonda_engine_step_seconds": ("step_seconds", "Time spent in steps"),
    "zonda_engine_compute_seconds": ("compute_seconds", "Time of the steps that the model and the sampler took"),
}
HISTOGRAMS = {
    "zonda_time_to_first_token_seconds": ("first_token", "From a request's arrival to its first token"),
    "zonda_inter_token_latency_seconds": ("between_tokens", "Between two tokens of one sequence"),
}


class Metrics:
    """The metrics of one server."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("http_requests", "Requests answered", ("method", "path", "model", "status"),
                                 registry=self._registry)
        self._seconds = Histogram("http_request_duration_seconds", "Time from a request's start to its answer's end",
                                  ("method", "path", "model", "status"), buckets=SECONDS, registry=self._registry)
        self._bytes = Histogram("http_request_body_bytes", "Size of request bodies", ("method", "path", "model"),
                                buckets=BYTES, registry=self._registry)
        self._registry.register(_Live(service))

    def observe(self, call: Call) -> None:
        """Count an answered request."""
        labels = call.method, call.path, call.model
        self._requests.labels(*labels, call.status).inc()
        self._seconds.labels(*labels, call.status).observe(call.seconds)
        if call.size:
            self._bytes.labels(*labels).observe(call.size)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Live:
    """What is read from the engines and from the requests in flight at the moment of the question."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        yield self._in_flight()
        yield from self._models()
        engines = {name: llm.engine.stats() for name, llm in self._service.registry.loaded().items()}
        yield from _engine_metrics(engines)

    def _in_flight(self) -> Metric:
        family = GaugeMetricFamily("http_requests_in_flight", "Requests being answered",
                                   labels=("method", "path", "model"))
        counts = Tally((call.method, call.path, call.model) for call in self._service.in_flight())
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return family

    def _models(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily("zonda_model_loaded", "Whether a model is in memory", labels=("model",))
        waiting = GaugeMetricFamily("zonda_requests_pending_admission", "Requests that wait for a model to be loaded",
                                    labels=("model",))
        for each in self._service.registry:
            loaded.add_metric((each.title,), each.llm is not None)
            waiting.add_metric((each.title,), each.waiting)
        yield from (loaded, waiting)


def _engine_metrics(engines: dict[str, stats.Stats]) -> Iterator[Metric]:
    for name, (field, text) in GAUGES.items():
        yield _filled(GaugeMetricFamily(name, text, labels=("model",)), engines, field)
    for name, (field, text) in COUNTERS.items():
        yield _filled(CounterMetricFamily(name, text, labels=("model",)), engines, field)
    for name, (field, text) in HISTOGRAMS.items():
        yield _histogram(name, text, {model: getattr(each, field) for model, each in engines.items()})
    yield from _by_reason(engines)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, engines: dict[str, stats.Stats], field: str) -> Metric:
    for model, each in engines.items():
        family.add_metric((model,), getattr(each, field))
    return family


def _by_reason(engines: dict[str, stats.Stats]) -> Iterator[Metric]:
    total = CounterMetricFamily("zonda_tokens_processed", "Prompt tokens computed and tokens generated",
                                labels=("model",))
    ended = CounterMetricFamily("zonda_sequences_completed", "Sequences that ended", labels=("model", "reason"))
    refused = CounterMetricFamily("zonda_sequences_rejected", "Requests refused", labels=("model", "reason"))
    for model, each in engines.items():
        total.add_metric((model,), each.prompt_tokens + each.generated_tokens)
        refused.add_metric((model, "queue_full"), each.rejected)
        for reason, count in each.finished.items():
            ended.add_metric((model, reason), count)
    yield from (total, ended, refused)


def _histogram(name: str, text: str, values: dict[str, stats.Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("model",))
    for model, each in values.items():
        bounds = [*map(str, map(float, each.bounds)), "+Inf"]
        family.add_metric((model,), list(zip(bounds, accumulate(each.counts))), each.total)
    return family
