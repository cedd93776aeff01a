"""Parts of a run on a device with memory of its own, by name, and the time that they take."""

from __future__ import annotations

import time

HOST_TO_DEVICE, COMPUTE, DEVICE_TO_HOST = STAGES = ("host to device", "compute", "device to host")


class Stopwatch:
    """Adds up seconds by stage.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.start()

    def start(self) -> None:
        """From now on time counts."""
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What passed since the start or the last lap was `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now
