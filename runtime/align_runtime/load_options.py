"""The options of `align_runtime.load`, as one value that is checked once and handed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from align_runtime.devices import backend_of, resolve_device
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import TOWERS
from align_runtime.image_options import DEFAULT_IMAGES, ImageOptions
from align_runtime.manifest import check_sha256
from align_runtime.processors import check_thread_count


@dataclass(frozen=True)
class LoadOptions:
    """What `align_runtime.load` takes after the bundle; its docstring explains each.

    Its keywords `alpha`, `formats` and `max_pixels` are `images`. `towers` is kept in the order of `TOWERS`, and
    `device` is never ``"auto"``; with `manifest_sha256` hashes are checked.

    Raises:
        ConfigurationError: a value is of another kind, a device or tower is unknown, a number of threads is out of
            range, or `manifest_sha256` is not one or cannot be checked.
    """

    precision: str = "fp32"
    device: str = "cpu"
    towers: Sequence[str] = TOWERS
    threads: int | None = None
    streams: int | None = None
    check_hashes: bool = False
    manifest_sha256: str | None = None
    images: ImageOptions = DEFAULT_IMAGES
    decode_threads: int | None = None
    mmap: bool = True
    arena: bool = True

    def __post_init__(self) -> None:
        kinds = {"precision": str, "device": str, "check_hashes": bool, "mmap": bool, "arena": bool}
        for name, kind in kinds.items():
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigurationError(f"{name} is {shortened(value)}; expected a {kind.__name__}")
        object.__setattr__(self, "towers", _checked_towers(self.towers))
        object.__setattr__(self, "device", resolve_device(self.device))
        check_thread_count("threads", self.threads)
        check_thread_count("decode_threads", self.decode_threads)
        if self.manifest_sha256 is not None:
            check_pin(self.manifest_sha256, self.device)
            object.__setattr__(self, "check_hashes", True)  # the pin stands for the files by their hashes


def check_pin(manifest_sha256: str, device: str) -> None:
    """Raises ConfigurationError unless `manifest_sha256` is a sha256 that can stand for all that `device` reads."""
    check_sha256(manifest_sha256)
    if backend_of(device).has_engines:
        raise ConfigurationError(
            f"manifest_sha256 is given, but {device} runs engines, which the manifest does not list; build them on "
            "this machine from a bundle that was verified, and leave manifest_sha256 out"
        )


def _checked_towers(towers: object) -> tuple[str, ...]:
    """`towers` in the order of `TOWERS`."""
    chosen = tuple(towers) if isinstance(towers, Iterable) and not isinstance(towers, str) else ()
    if not chosen or any(name not in TOWERS for name in chosen):
        raise ConfigurationError(
            f"towers is {shortened(towers)}; expected ('vision', 'text'), ('vision',) or ('text',)"
        )
    return tuple(name for name in TOWERS if name in chosen)
