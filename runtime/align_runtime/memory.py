"""Memory: what to say when there is not enough, and giving back what was freed."""

from __future__ import annotations

import ctypes

from align_runtime.errors import DeviceError


def out_of_memory(action: str) -> DeviceError:
    """The error of an `action` for which there was not enough memory, on a CPU."""
    return DeviceError(
        f"out of memory: cannot {action}. Pass fewer inputs at once (batch_size=), load one tower (towers=), without "
        "streams (streams=1), or raise the limit of memory"
    )


def give_back() -> None:
    """Returns freed memory to the operating system. glibc would keep most of it for later allocations."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
