"""The options of `align_runtime.load`, as one value that is checked once and handed on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from align_runtime.devices import backend_of, resolve_device
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import TOWERS
from align_runtime.image_options import DEFAULT_IMAGES, ImageOptions
from align_runtime.manifest import check_sha256
from align_runtime.processors import check_thread_count
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuned_choice import Tuned
from align_runtime.tuning import TARGETS
from align_runtime.user_path import user_path

CHOSEN = ("precision", "device", "threads", "streams")  # by `tuned`
DEFAULTS = TowerSettings()


@dataclass(frozen=True)
class LoadOptions:
    """What `align_runtime.load` takes after the bundle; its docstring explains each.

    Its keywords `alpha`, `formats` and `max_pixels` are `images`. `towers` is kept in the order of `TOWERS`, and
    `device` is never ``"auto"``; with `manifest_sha256` hashes are checked. With `tuned`, `precision`, `device`,
    `threads` and `streams` are None: what is measured as a whole is taken as a whole.

    Raises:
        ConfigurationError: a value is of another kind, a device or tower is unknown, a number of threads is out of
            range, `manifest_sha256` is not one or cannot be checked, or `tuned` stands beside what it chooses.
    """

    precision: str | None = None
    device: str | None = None
    towers: Sequence[str] = TOWERS
    threads: int | None = None
    streams: int | None = None
    check_hashes: bool = False
    manifest_sha256: str | None = None
    images: ImageOptions = DEFAULT_IMAGES
    decode_threads: int | None = None
    mmap: bool = True
    arena: bool = True
    tuned: Tuned = False

    def __post_init__(self) -> None:
        self._check_tuned()
        for name in CHOSEN if self.tuned is False else ():
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(DEFAULTS, name))
        kinds: dict[str, type] = {"check_hashes": bool, "mmap": bool, "arena": bool}
        if self.tuned is False:
            kinds |= {"precision": str, "device": str}
        for name, kind in kinds.items():
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigurationError(f"{name} is {shortened(value)}; expected a {kind.__name__}")
        object.__setattr__(self, "towers", _checked_towers(self.towers))
        if self.device is not None:
            object.__setattr__(self, "device", resolve_device(self.device))
        check_thread_count("threads", self.threads)
        check_thread_count("decode_threads", self.decode_threads)
        if self.manifest_sha256 is not None:
            check_pin(self.manifest_sha256, *([] if self.device is None else [self.device]))
            object.__setattr__(self, "check_hashes", True)  # the pin stands for the files by their hashes

    def _check_tuned(self) -> None:
        if not isinstance(self.tuned, bool | str | os.PathLike):
            raise ConfigurationError(
                f"tuned is {shortened(self.tuned)}; expected True, {', '.join(map(repr, TARGETS))} or a path"
            )
        if self.tuned is False:
            return
        given = [name for name in CHOSEN if getattr(self, name) is not None]
        if given:
            raise ConfigurationError(
                f"{given[0]} is {shortened(getattr(self, given[0]))}, but tuned chooses {', '.join(CHOSEN)} together, "
                f"as they were measured; leave out {' and '.join(given)}, or tuned"
            )
        if self.tuned is not True and self.tuned not in TARGETS:  # found again after a change of folder, and by pickle
            object.__setattr__(self, "tuned", user_path(self.tuned).absolute())

    @property
    def settings(self) -> TowerSettings:
        """Those of every tower, without `tuned`."""
        assert self.precision is not None
        assert self.device is not None
        return TowerSettings(self.precision, self.device, self.threads, self.streams)


def check_pin(manifest_sha256: str, *devices: str) -> None:
    """Raises ConfigurationError unless `manifest_sha256` is a sha256 that can stand for all that `devices` read."""
    check_sha256(manifest_sha256)
    for device in devices:
        if backend_of(device).has_engines:
            raise ConfigurationError(
                f"manifest_sha256 is given, but {device} runs engines, which the manifest does not list; build them "
                "on this machine from a bundle that was verified, and leave manifest_sha256 out"
            )


def _checked_towers(towers: object) -> tuple[str, ...]:
    """`towers` in the order of `TOWERS`."""
    chosen = tuple(towers) if isinstance(towers, Iterable) and not isinstance(towers, str) else ()
    if not chosen or any(name not in TOWERS for name in chosen):
        raise ConfigurationError(
            f"towers is {shortened(towers)}; expected ('vision', 'text'), ('vision',) or ('text',)"
        )
    return tuple(name for name in TOWERS if name in chosen)
