"""Which images are decoded, and what becomes of their transparency: one value, checked once and handed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import ImageColor

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened

DROP = "drop"
DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMATS = (*DEFAULT_FORMATS, "PPM", "JPEG2000", "AVIF")  # the last three: their time and memory are not bounded
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
DEFAULT_MAX_PIXELS = 1 << 26  # 8192 × 8192; docs/deployment.md has the bytes that the copies of one pixel take
LARGEST_MAX_PIXELS = 178_956_970  # 512 MiB as RGB; Pillow's own limit for errors
MAX_SIDE = 65_535  # pixels, the limit of JPEG; thinner images exist only to make the resize expensive


@dataclass(frozen=True)
class ImageOptions:
    """How images are decoded.

    Attributes:
        alpha: ``"drop"`` ignores transparency, as transformers' AlignProcessor does for a file; a colour, by name or as
            ``"#rrggbb"``, is laid behind the image.
        formats: names of `FORMATS`, in any case, of encoded images that are decoded; kept in upper case.
        max_pixels: maximum width × height of an image.

    Raises:
        ConfigurationError: a value is of another kind, unknown or out of range.
    """

    alpha: str = DROP
    formats: Sequence[str] = DEFAULT_FORMATS
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _checked_formats(self.formats))
        _colour(self.alpha)
        if type(self.max_pixels) is not int or not 1 <= self.max_pixels <= LARGEST_MAX_PIXELS:
            raise ConfigurationError(
                f"max_pixels is {shortened(self.max_pixels)}; expected an integer from 1 to {LARGEST_MAX_PIXELS}"
            )

    @property
    def background(self) -> tuple[int, int, int] | None:
        """Red, green and blue (0–255) of what lies behind transparent pixels; None if their alpha is dropped."""
        return _colour(self.alpha)

    @property
    def max_file_bytes(self) -> int:
        """Maximum size of an encoded image: 8 bytes, 16-bit RGBA, for each of `max_pixels`, and 16 MiB beside them."""
        return 8 * self.max_pixels + (16 << 20)


def is_image_name(name: str) -> bool:
    """Whether the relative path `name` has the suffix of an image and no hidden part."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts if part != "..")
    return path.suffix.lower() in SUFFIXES and not hidden


def _checked_formats(formats: object) -> tuple[str, ...]:
    """`formats` in the order of `FORMATS`."""
    given = tuple(formats) if isinstance(formats, Iterable) and not isinstance(formats, str | bytes) else ()
    names = [name.upper() if isinstance(name, str) else name for name in given]
    if not names or any(name not in FORMATS for name in names):
        raise ConfigurationError(f"formats is {shortened(formats)}; expected some of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names)


def _colour(alpha: object) -> tuple[int, int, int] | None:
    if isinstance(alpha, str) and alpha == DROP:
        return None
    try:
        colour = ImageColor.getrgb(alpha) if isinstance(alpha, str) else ()
    except ValueError:
        colour = ()
    match colour:
        case (red, green, blue) if max(colour) <= 255:  # Pillow takes any number in "rgb(…)"
            return red, green, blue
        case _:  # also a colour that is transparent itself
            raise ConfigurationError(
                f'alpha is {shortened(alpha)}; expected "drop" or an opaque colour such as "white" or "#ffffff"'
            )


DEFAULT_IMAGES = ImageOptions()
