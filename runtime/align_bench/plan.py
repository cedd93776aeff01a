"""Which cases a bench has: the options of the command, checked, and every combination of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from align_bench.record import Case
from align_bench.timing import Effort
from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import ANY_TARGET, TOWERS
from align_runtime.scheduling import stream_count

IMAGE_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Plan:
    """What ``align-bench`` is asked for.

    Attributes:
        precisions: variants; all that the bundle has for a device when empty.
        lengths: of texts in tokens.
        image_sizes: width x height of the JPEG files.
        clients: threads of the closed loops, one loop each.
        rates: of the open loops, as shares of the throughput of the busiest closed loop.
        load_seconds: of each loop.
        starts: fresh processes per variant and device.
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

    def __post_init__(self) -> None:
        for tower in self.towers:
            if tower not in TOWERS:
                raise ConfigurationError(f"there is no tower {tower!r}; known: {', '.join(TOWERS)}")
        for name in ("batches", "lengths", "clients", "rates"):
            for value in getattr(self, name):
                if not value > 0:
                    raise ConfigurationError(f"{name} holds {value:g}; positive numbers are needed")
        for size in self.image_sizes:
            if not IMAGE_SIZE.fullmatch(size):
                raise ConfigurationError(f"the image size is {size!r}; width x height is needed, as in 640x480")
        if self.starts < 0 or not self.load_seconds > 0:
            raise ConfigurationError("the number of fresh starts and the seconds of a loop must not be negative")

    def variants(self, bundle: Bundle, device: str) -> tuple[str, ...]:
        """The precisions to measure on `device`, in the order of the manifest.

        Raises:
            ConfigurationError: one that was asked for and is not in the bundle.
        """
        usable = [graph for graph in bundle.manifest.graphs if graph.target in (device, ANY_TARGET)]
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
        return asdict(self)
