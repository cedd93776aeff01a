"""What TensorRT's builder is at, for the terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from align_runtime.backends.tensorrt import libraries
from align_runtime.console import Progress

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt


def build_monitor(title: str, progress: Progress) -> trt.IProgressMonitor:
    """A monitor that shows the phase and how long the build has taken. TensorRT calls it from threads of its own."""
    start = time.monotonic()

    class Monitor(libraries.trt.IProgressMonitor):
        def __init__(self) -> None:
            libraries.trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:  # noqa: ARG002 (TensorRT's signature)
            self.steps[phase_name] = num_steps
            self._show(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._show(phase_name, step + 1)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def _show(self, phase: str, done: int) -> None:
            seconds = time.monotonic() - start
            progress.show(f"{title}: {phase} {done}/{self.steps.get(phase, 0)} ({seconds:.0f} s)")

    return Monitor()
