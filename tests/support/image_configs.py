"""Preprocessing configurations for tests of images."""

from __future__ import annotations

from typing import Any

from align_runtime.preprocessing import ImagePreprocessing

ALIGN: dict[str, Any] = {
    "size": {"height": 346, "width": 346},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 289, "width": 289},
    "do_normalize": False,
    "include_top": False,
}
TYPICAL = ImagePreprocessing.from_hub(ALIGN, "test")


def small(**changes: Any) -> dict[str, Any]:
    """A configuration with a small output, which makes tests of many images fast."""
    return {**ALIGN, "size": {"height": 23, "width": 31}, "crop_size": {"height": 19, "width": 27}, **changes}
