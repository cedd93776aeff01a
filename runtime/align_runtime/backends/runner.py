"""What every backend offers: a loaded graph that runs batches, and the time that its stages take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

HOST_TO_DEVICE, COMPUTE, DEVICE_TO_HOST = STAGES = ("host to device", "compute", "device to host")


class Runner(Protocol):
    """A loaded graph with one output. Any number of threads may call `run` at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The graph's output for `inputs`, which have the names, dtypes and shapes of the graph."""

    def prepare(self) -> None:
        """Sets up everything that the first call of `run` would set up otherwise."""

    def close(self) -> None:
        """Frees what the graph holds. `run` must not be called afterwards."""


@runtime_checkable
class StagedRunner(Protocol):
    """A runner that measures copies and computation separately."""

    def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], Mapping[str, float]]:
        """The output of `run`, and the seconds of each of `STAGES`.

        The device is synchronized after each stage, so that no stage includes work of another one.
        """


@runtime_checkable
class BucketedRunner(Protocol):
    """A runner of a device that is set up for a few batch sizes and takes several batches at a time.

    Attributes:
        batches: the batch sizes, ascending; others are padded or split.
        in_flight: number of calls of `run` that keep the device busy.
    """

    @property
    def batches(self) -> tuple[int, ...]: ...

    @property
    def in_flight(self) -> int: ...


class Stopwatch:
    """Adds up the seconds of each stage in `seconds`."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.start()

    def start(self) -> None:
        """Starts the first stage."""
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends `stage` and starts the next one."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now
