"""Preprocessing of images for the vision tower, in a canonical form without defaults.

    decode → RGB → resize → centre crop → uint8 pixels → rescale → normalize → pixel_values

`align_runtime.images` computes the uint8 pixels. The affine steps that follow are part of the exported graph, and
`normalize` computes them for graphs with float input. Both are bit-equal to transformers' Pillow-backed
EfficientNetImageProcessor (5.23).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError, InputError
from align_runtime.hub_preprocessing import canonical
from align_runtime.image_size import Size
from align_runtime.json_files import check_keys, of_kind, require

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's codes
CANONICAL_KEYS = (
    "size",
    "resample",
    "crop_size",
    "rescale_factor",
    "rescale_offset",
    "image_mean",
    "image_std",
    "include_top",
)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImagePreprocessing:
    """The steps from an image to `pixel_values`. A step that is off is None or False, so equal objects behave equally.

    Attributes:
        size: the size to resize to, or None.
        resample: Pillow's resampling code 0–5; None if and only if `size` is None.
        crop_size: (height, width) of the centre crop, or None. A crop larger than the image pads with black.
        rescale_factor: multiplies the uint8 values, or None.
        rescale_offset: subtract 1 after rescaling.
        image_mean: per channel, subtracted before the division by `image_std`; None without normalization.
        image_std: per channel; None if neither `image_mean` nor `include_top` needs it.
        include_top: divide by `image_std` (again).

    Raises:
        ConfigurationError: the steps contradict each other, or give values that are not finite or an output size that
            depends on the image.
    """

    size: Size | None
    resample: int | None
    crop_size: tuple[int, int] | None
    rescale_factor: float | None
    rescale_offset: bool
    image_mean: Triple | None
    image_std: Triple | None
    include_top: bool

    def __post_init__(self) -> None:
        if (self.size is None) != (self.resample is None):
            raise ConfigurationError(f"size is {self.size} but resample is {self.resample}; set both or neither")
        if self.resample is not None and self.resample not in RESAMPLING:
            codes = ", ".join(f"{code} {name}" for code, name in RESAMPLING.items())
            raise ConfigurationError(f"resample is {self.resample}; supported are {codes}")
        if self.rescale_offset and self.rescale_factor is None:
            raise ConfigurationError("rescale_offset is true without a rescale_factor; set both or neither")
        if (self.image_std is None) != (self.image_mean is None and not self.include_top):
            raise ConfigurationError(
                f"image_std is {self.image_std}; it is needed if and only if image_mean ({self.image_mean}) or "
                f"include_top ({self.include_top}) is set"
            )
        if self.crop_size is None and (self.size is None or not self.size.fixed):
            steps = "without a resize" if self.size is None else f"with size {self.size.to_json()}"
            raise ConfigurationError(
                f"the output size depends on the image ({steps} and without a centre crop); "
                "set do_center_crop and crop_size, or a size with height and width"
            )
        if not numpy.isfinite(self._table()).all():
            raise ConfigurationError(
                f"rescale_factor {self.rescale_factor}, image_mean {self.image_mean} and image_std {self.image_std} "
                "give values that are not finite in float32; is an image_std zero?"
            )

    @classmethod
    def from_hub(cls, config: Mapping[str, Any], where: str) -> ImagePreprocessing:
        """Reads the object of a ``preprocessor_config.json``. Missing keys get the defaults of transformers 5.23.

        Args:
            config: the object of the file, or of `image_processor` in a ``processor_config.json``.
            where: its name in error messages, e.g. the path.

        Raises:
            ConfigurationError: a key or value is not supported, or the output size depends on the image.
        """
        return cls.from_json(canonical(config, where), where)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any], where: str) -> ImagePreprocessing:
        """Reads the object that `to_json` returns, with exactly the keys `CANONICAL_KEYS`.

        Raises:
            ConfigurationError: a key is missing or unknown, or a value is not supported.
        """
        check_keys(where, obj, CANONICAL_KEYS)
        size = None if obj["size"] is None else Size.from_json(obj["size"], f"{where}: size")
        resample = None if obj["resample"] is None else of_kind(f"{where}: resample", obj["resample"], int)
        crop_size = None if obj["crop_size"] is None else _crop(f"{where}: crop_size", obj["crop_size"])
        factor = None if obj["rescale_factor"] is None else require(where, obj, "rescale_factor", float)
        offset = require(where, obj, "rescale_offset", bool)
        mean, std = _optional_triple(where, obj, "image_mean"), _optional_triple(where, obj, "image_std")
        include_top = require(where, obj, "include_top", bool)
        try:
            return cls(size, resample, crop_size, factor, offset, mean, std, include_top)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """The object for the bundle's manifest, with exactly the keys `CANONICAL_KEYS`."""
        crop = self.crop_size
        return {
            "size": None if self.size is None else self.size.to_json(),
            "resample": self.resample,
            "crop_size": None if crop is None else {"height": crop[0], "width": crop[1]},
            "rescale_factor": self.rescale_factor,
            "rescale_offset": self.rescale_offset,
            "image_mean": None if self.image_mean is None else list(self.image_mean),
            "image_std": None if self.image_std is None else list(self.image_std),
            "include_top": self.include_top,
        }

    def to_hub(self) -> dict[str, Any]:
        """The object of a ``preprocessor_config.json`` with every key explicit; `from_hub` reads it back."""
        return {
            "image_processor_type": "EfficientNetImageProcessor",
            "do_resize": self.size is not None,
            "do_center_crop": self.crop_size is not None,
            "do_rescale": self.rescale_factor is not None,
            "do_normalize": self.image_mean is not None,
            **self.to_json(),
        }

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) in pixels of every preprocessed image."""
        if self.crop_size is not None:
            return self.crop_size
        assert self.size is not None  # __post_init__: without a crop there is a fixed size
        return self.size.target(1, 1)

    def scale_and_offset(self) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
        """(scale, offset), float64 (3,) each: pixel_values ≈ pixels · scale + offset, for folding into a graph.

        It holds exactly in real arithmetic; `normalize` also has the reference's rounding errors.
        """
        scale, offset = numpy.ones(3), numpy.zeros(3)
        std = numpy.array(self.image_std or (1.0, 1.0, 1.0))
        if self.rescale_factor is not None:
            scale *= self.rescale_factor
            offset -= float(self.rescale_offset)
        if self.image_mean is not None:
            scale, offset = scale / std, (offset - self.image_mean) / std
        if self.include_top:
            scale, offset = scale / std, offset / std
        return scale, offset

    def normalize(self, pixels: NDArray[numpy.uint8]) -> NDArray[numpy.float32]:
        """`pixel_values` of uint8 `pixels`, bit-equal to transformers.

        Args:
            pixels: uint8 (n, height, width, 3), RGB.

        Returns:
            float32 (n, 3, height, width).

        Raises:
            InputError: `pixels` has another type or shape.
        """
        if pixels.dtype != numpy.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise InputError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (n, height, width, 3)")
        count, height, width, _ = pixels.shape
        values = numpy.empty((count, 3, height, width), numpy.float32)
        for channel, table in enumerate(self._table()):
            values[:, channel] = table[pixels[..., channel]]
        return values

    def _table(self) -> NDArray[numpy.float32]:
        """float32 (3, 256): `pixel_values` by channel and uint8 value, rounded as in transformers.

        Rescaling multiplies in float64 and rounds to float32; all later steps are in float32.
        """
        levels = numpy.arange(256, dtype=numpy.uint8)
        with numpy.errstate(all="ignore"):  # __post_init__ refuses values that are not finite
            values = levels.astype(numpy.float32)
            if self.rescale_factor is not None:
                values = (levels.astype(numpy.float64) * self.rescale_factor).astype(numpy.float32)
                if self.rescale_offset:
                    values -= numpy.float32(1)
            table = numpy.tile(values, (3, 1))
            if self.image_mean is not None:
                table = (table - _column(self.image_mean)) / _column(self.image_std)
            if self.include_top:
                table = table / _column(self.image_std)
        return table


def _column(values: Triple | None) -> NDArray[numpy.float32]:
    return numpy.array(values, numpy.float32)[:, None]


def _crop(name: str, value: Any) -> tuple[int, int]:
    size = Size.from_json(value, name)
    if not size.fixed:
        raise ConfigurationError(f"{name} is {value}; expected a height and a width")
    return size.target(1, 1)


def _optional_triple(where: str, obj: Mapping[str, Any], key: str) -> Triple | None:
    if obj[key] is None:
        return None
    values = of_kind(f"{where}: {key}", obj[key], list)
    if len(values) != 3:
        raise ConfigurationError(f"{where}: {key} has {len(values)} values; expected 3, one per channel")
    red, green, blue = (of_kind(f"{where}: {key}", value, float) for value in values)
    return red, green, blue
