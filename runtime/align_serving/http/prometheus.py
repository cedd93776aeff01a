"""Metrics of the service, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from align_serving.http.admission import Admission
from align_serving.http.batching import Call, R, T

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one application."""

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "align_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "align_request_seconds", "From the head to the end of the answer.", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "align_batch_size", "Items of one call of the model.", ["tower"], buckets=_SIZES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "align_batch_seconds", "Time of one call of the model.", ["tower"], buckets=_SECONDS, registry=self.registry
        )
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("align_waiting_items", "Texts and images that wait or are computed.", lambda: admission.items),
            ("align_waiting_bytes", "Bytes of the bodies of requests that are not answered.", lambda: admission.bytes),
        )
        for name, words, value in gauges:
            Gauge(name, words, registry=self.registry).set_function(value)

    def measured(self, tower: str, call: Call[T, R]) -> Call[T, R]:
        """`call`, whose batches are counted."""

        def counted(items: Sequence[T]) -> Sequence[R]:
            start = time.perf_counter()
            results = call(items)
            self.batch_size.labels(tower).observe(len(items))
            self.batch_seconds.labels(tower).observe(time.perf_counter() - start)
            return results

        return counted

    def text(self) -> bytes:
        """All of them in the text format of Prometheus."""
        return generate_latest(self.registry)
