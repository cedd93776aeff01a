"""What one ``align-bench run`` measures: its options, checked, and the cases that they make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from align_bench.record import Case
from align_bench.subject import check_length
from align_bench.timing import Effort
from align_runtime.bundle import Bundle
from align_runtime.computed import computed_on
from align_runtime.devices import backend_of
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import TOWERS
from align_runtime.scheduling import stream_count

IMAGE_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Plan:
    """The options of ``align-bench run``.

    Attributes:
        precisions: variants; when empty, all that the bundle has for a device.
        batches: inputs per call.
        lengths: tokens of a text.
        image_sizes: width x height of the JPEG files.
        threads: of one run of a graph; all cores when None.
        streams: single-threaded runs side by side; one per thread when None.
        clients: threads of the closed loops, one loop each.
        rates: of the open loops, as shares of the highest throughput of a closed loop.
        load_seconds: duration of each loop.
        starts: fresh processes per variant and device.
        max_latency_ms: bound on the p95 for the verdict; None: no bound.
    """

    towers: tuple[str, ...] = TOWERS
    precisions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    batches: tuple[int, ...] = (1, 8)
    lengths: tuple[int, ...] = (12, 64)
    image_sizes: tuple[str, ...] = ("640x480",)
    threads: int | None = None
    streams: int | None = None
    effort: Effort = field(default_factory=Effort)
    clients: tuple[int, ...] = (1, 2, 4)
    rates: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    load_seconds: float = 5
    starts: int = 3
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        for tower in self.towers:
            if tower not in TOWERS:
                raise ConfigurationError(f"unknown tower {tower!r}; known: {', '.join(TOWERS)}")
        for device in self.devices:
            backend_of(device)  # raises
        for name in ("batches", "lengths", "clients", "rates"):
            for value in getattr(self, name):
                if not 0 < value < float("inf"):
                    raise ConfigurationError(f"{name}: expected positive values, got {value:g}")
        for size in self.image_sizes:
            if not IMAGE_SIZE.fullmatch(size):
                raise ConfigurationError(f"image size: expected WIDTHxHEIGHT as in 640x480, got {size!r}")
        if self.rates and not self.clients:
            raise ConfigurationError("open loops need closed ones: their rates are shares of what the clients achieve")
        if self.starts < 0:
            raise ConfigurationError(f"expected 0 fresh starts or more, got {self.starts}")
        for title, seconds in {"load seconds": self.load_seconds, "maximum latency": self.max_latency_ms}.items():
            if seconds is not None and not 0 < seconds < float("inf"):
                raise ConfigurationError(f"{title}: expected a positive value, got {seconds:g}")

    def check(self, bundle: Bundle) -> None:
        """Checks, before anything is measured, that `bundle` has what the plan asks for.

        Raises:
            ConfigurationError: a variant that the bundle lacks, too many tokens, or streams that the device lacks.
        """
        for length in self.lengths if "text" in self.towers else ():
            check_length(length, bundle.manifest.model.max_length)
        for device in self.devices:
            for precision in self.variants(bundle, device):
                list(self.cases(precision, device))

    def variants(self, bundle: Bundle, device: str) -> tuple[str, ...]:
        """The precisions to measure on `device`, in the order of the manifest.

        Raises:
            ConfigurationError: a precision that the bundle does not have for `device`.
        """
        usable = computed_on(device, bundle.manifest.graphs)
        chosen = self.precisions or tuple(dict.fromkeys(graph.variant for graph in usable))
        for precision in chosen:
            for tower in TOWERS:
                bundle.graph(tower, precision, device)
        return chosen

    def cases(self, precision: str, device: str) -> Iterator[Case]:
        """Every case of one variant on one device."""
        streams = stream_count(device, self.threads, self.streams)
        for tower in self.towers:
            sizes = self.image_sizes if tower == "vision" else tuple(map(str, self.lengths))
            for size, batch in product(sizes, self.batches):
                yield Case(tower, precision, device, batch, size, self.threads, streams)

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        return asdict(self)


QUICK = Plan(lengths=(12,), effort=Effort(samples=7, seconds=2), clients=(), rates=(), starts=1)
