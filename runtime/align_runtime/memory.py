"""Memory on a CPU: how sessions use it, what to say when there is not enough, and giving back what was freed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from align_runtime.errors import DeviceError


@dataclass(frozen=True)
class MemoryUse:
    """How a session on a CPU uses memory.

    Attributes:
        data: content of the files of external data by name; those that are not in it are memory-mapped.
        arena: whether memory of finished runs is kept for the next ones.
        in_order: whether operators run in the order of the file, as far as ONNX Runtime leaves them as they are. Its
            usual order puts off what only the end of a graph needs, and keeps all that this is computed of.
    """

    data: Mapping[str, bytes] = field(default_factory=dict)
    arena: bool = True
    in_order: bool = False


MAPPED = MemoryUse()


def out_of_memory(action: str) -> DeviceError:
    """The error of an `action` for which there was not enough memory, on a CPU."""
    return DeviceError(
        f"out of memory: cannot {action}. Pass fewer inputs at once (batch_size=), load one tower (towers=), without "
        "streams (streams=1), or raise the limit of memory"
    )


@contextmanager
def reported(action: str) -> Iterator[None]:
    """A MemoryError in this block becomes the error of `out_of_memory`."""
    try:
        yield
    except MemoryError:
        raise out_of_memory(action) from None


def give_back() -> None:
    """Returns freed memory to the operating system. glibc would keep most of it for later allocations."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
