"""How many runs share a CPU."""

from __future__ import annotations

import os

from align_runtime.errors import ConfigurationError

MAX_STREAMS = 1024


def stream_count(device: str, threads: int | None, streams: int | None) -> int:
    """How many single-threaded runs go side by side; 1 means none: every run has all threads.

    Args:
        device: only a CPU has streams.
        threads: of one run, all cores when None.
        streams: what the caller asks for; when None, as many as `threads` on a CPU and none elsewhere.

    Raises:
        ConfigurationError: a number out of range, or streams on a device that has none.
    """
    if streams is None:
        return (threads or available_cores()) if device == "cpu" else 1
    if type(streams) is not int or not 1 <= streams <= MAX_STREAMS:
        raise ConfigurationError(f"streams is {streams!r}; 1 to {MAX_STREAMS} is needed, or None for one per thread")
    if streams > 1 and device != "cpu":
        raise ConfigurationError(f"streams is {streams} on {device}; only the CPU has streams, leave it out")
    return streams


def available_cores() -> int:
    """Logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
