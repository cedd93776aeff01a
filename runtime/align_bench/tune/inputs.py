"""The inputs of a search: what is timed, and what the accuracy is taken on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from align_bench.subject import TextMaker, make_images
from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.image_options import DEFAULT_IMAGES, SUFFIXES
from align_runtime.regular_files import read_regular

T = TypeVar("T")

MOST_INPUTS = 64  # of the caller's own; evenly spaced where there are more
MAX_TEXT_BYTES = 64 << 20  # of a file of captions
LENGTH = 12  # tokens of a text that is made up
IMAGES, TEXTS = 16, 128  # that are made up


@dataclass(frozen=True)
class TowerInputs:
    """Inputs of one tower.

    Attributes:
        timed: encoded images, or texts.
        own: those of `timed` that are the caller's; the accuracy is taken on the golden inputs and on these.
    """

    timed: Sequence[bytes] | Sequence[str]
    own: Sequence[bytes] | Sequence[str]


def built_in(bundle: Bundle, tower: str) -> TowerInputs:
    """Inputs made from a seed: JPEG files of 640x480, texts of 12 tokens."""
    if tower == "vision":
        return TowerInputs(make_images(IMAGES, 640, 480), ())
    return TowerInputs(TextMaker(bundle).make(TEXTS, min(LENGTH, bundle.manifest.model.max_length)), ())


def own_images(paths: Sequence[Path]) -> TowerInputs:
    """The images that `paths` name: files, and those of folders by their suffix.

    Raises:
        InputError: a file cannot be read.
        ConfigurationError: there are none.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(
            f"--images: no images in {', '.join(map(str, paths))}; known are {', '.join(SUFFIXES)}"
        )
    images = [read_regular(file, DEFAULT_IMAGES.max_file_bytes, InputError) for file in spread(files)]
    return TowerInputs(images, images)


def own_texts(file: Path) -> TowerInputs:
    """The texts in `file`, one per line.

    Raises:
        ConfigurationError: it cannot be read, or has none.
    """
    try:
        lines = read_regular(file, MAX_TEXT_BYTES, ConfigurationError).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--texts: {file} is not UTF-8 text (byte {error.start})") from None
    texts = [line for line in map(str.strip, lines) if line]
    if not texts:
        raise ConfigurationError(f"--texts: {file} has no texts; expected one per line")
    return TowerInputs(spread(texts), spread(texts))


def spread(items: Sequence[T]) -> list[T]:
    """At most `MOST_INPUTS` of `items`, evenly spaced."""
    count = min(len(items), MOST_INPUTS)
    return [items[index * len(items) // count] for index in range(count)]
