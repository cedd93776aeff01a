"""The options of `align_runtime.load`, as one value that is checked once and handed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from align_runtime.devices import resolve_device
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import TOWERS
from align_runtime.processors import check_thread_count


@dataclass(frozen=True)
class LoadOptions:
    """What `align_runtime.load` takes after the bundle; its docstring explains each.

    `towers` is kept in the order of `TOWERS`, and `device` is never ``"auto"``.

    Raises:
        ConfigurationError: a device or tower is unknown, or a number of threads is out of range.
    """

    precision: str = "fp32"
    device: str = "cpu"
    towers: Sequence[str] = TOWERS
    threads: int | None = None
    streams: int | None = None
    check_hashes: bool = False
    decode_threads: int | None = None
    mmap: bool = True
    arena: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "towers", _checked_towers(self.towers))
        object.__setattr__(self, "device", resolve_device(self.device))
        check_thread_count("threads", self.threads)
        check_thread_count("decode_threads", self.decode_threads)


def _checked_towers(towers: object) -> tuple[str, ...]:
    """`towers` in the order of `TOWERS`."""
    chosen = tuple(towers) if isinstance(towers, Iterable) and not isinstance(towers, str) else ()
    if not chosen or any(name not in TOWERS for name in chosen):
        raise ConfigurationError(f"towers is {towers!r}; expected ('vision', 'text'), ('vision',) or ('text',)")
    return tuple(name for name in TOWERS if name in chosen)
