"""The keys of a Hugging Face image processor configuration: each is used, ignored by name, or refused.

The defaults are those of transformers 5.23's EfficientNetImageProcessor. They changed between releases, so a bundle
also contains the canonical form, which has no defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind

DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 346, "width": 346},
    "default_to_square": True,
    "resample": 3,
    "do_center_crop": False,
    "crop_size": {"height": 289, "width": 289},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "rescale_offset": False,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "include_top": True,
}
PROCESSOR_TYPES = ("EfficientNetImageProcessor", "EfficientNetImageProcessorFast", "EfficientNetImageProcessorPil")

# Without effect, whatever the value. do_convert_rgb: an image is always converted to RGB, which the tower requires.
IGNORED = ("feature_extractor_type", "processor_class", "_valid_processor_keys", "do_convert_rgb", "disable_grouping")

# Without effect on the pixels with these values. Other values would request what is not implemented here.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "image_processor_type": (None, *PROCESSOR_TYPES),
    "do_pad": (None, False),
    "pad_size": (None,),
    "data_format": (None, "channels_first"),
    "input_data_format": (None,),
    "return_tensors": (None,),
    "device": (None,),
    "image_seq_length": (None,),
}
KNOWN_KEYS = frozenset({*DEFAULTS, *IGNORED, *NEUTRAL, "auto_map"})


def canonical(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The canonical object, with the keys of `preprocessing.CANONICAL_KEYS`, of a Hub configuration.

    A step that is off is None. Sizes become objects, a single mean or standard deviation becomes three values; other
    values are not checked here.

    Raises:
        ConfigurationError: a key or value is not supported, or the value of a step that is on is null.
    """
    for key, value in config.items():
        _check_key(key, value, where)
    values = {**DEFAULTS, **config}

    def flag(key: str) -> bool:  # transformers treats null as false
        return values[key] is not None and of_kind(f"{where}: {key}", values[key], bool) is True

    def needed(key: str, step: str) -> Any:
        if values[key] is None:
            raise ConfigurationError(f"{where}: {key} is null although {step} is true; set a value")
        return values[key]

    resize, crop, rescale = flag("do_resize"), flag("do_center_crop"), flag("do_rescale")
    normalize, top = flag("do_normalize"), flag("include_top")
    square = flag("default_to_square")
    deviation_for = "do_normalize" if normalize else "include_top"
    return {
        "size": _sides(needed("size", "do_resize"), square, f"{where}: size") if resize else None,
        "resample": needed("resample", "do_resize") if resize else None,
        "crop_size": _sides(needed("crop_size", "do_center_crop"), True, f"{where}: crop_size") if crop else None,
        "rescale_factor": needed("rescale_factor", "do_rescale") if rescale else None,
        "rescale_offset": rescale and flag("rescale_offset"),
        "image_mean": _per_channel(needed("image_mean", "do_normalize")) if normalize else None,
        "image_std": _per_channel(needed("image_std", deviation_for)) if normalize or top else None,
        "include_top": top,
    }


def _check_key(key: str, value: Any, where: str) -> None:
    if key in DEFAULTS or key in IGNORED:
        return
    if key == "auto_map":
        raise ConfigurationError(f"{where}: auto_map refers to code in the checkpoint, which is never run; remove it")
    if key not in NEUTRAL:
        raise ConfigurationError(
            f"{where}: unknown key {key[:40]!r} (value {repr(value)[:40]}); it could change the pixels; known are "
            f"{', '.join(DEFAULTS)}"
        )
    if not any(value is neutral or value == neutral for neutral in NEUTRAL[key]):
        supported = " or ".join(repr(neutral) for neutral in NEUTRAL[key])
        raise ConfigurationError(f"{where}: {key} is {repr(value)[:80]}; only {supported} is supported")


def _sides(value: Any, square: bool, where: str) -> dict[str, Any]:
    """An integer, [height, width] or an object as an object (transformers.image_processing_utils.get_size_dict)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ConfigurationError(f"{where} is {repr(value)[:80]}; expected [height, width]")
        return {"height": value[0], "width": value[1]}
    sides: dict[str, Any] = of_kind(where, value, dict)
    return sides


def _per_channel(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, list) else [value] * 3
