"""Transparent images: dropped as the checkpoint's own processor does with a file, or laid on a colour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from transformers import AlignProcessor
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_runtime import transparency
from align_runtime.errors import InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import decode, preprocess
from align_runtime.preprocessing import ImagePreprocessing
from support.hostile_images import PALETTE, png, png_chunk
from support.image_configs import TYPICAL, small
from support.made_images import encoded, image, noise, of_mode

CHECKPOINT = Path("reference/align-tiny")
WHITE = ImageOptions(alpha="white")
ALPHA = [(mode, None) for mode in ("RGBA", "LA", "PA")]  # the modes with a channel of their own


def transparent() -> dict[str, bytes]:
    """Files of every mode, transparent in each of the ways that a file can be."""
    palette, colours = bytes(range(256)), image(40, 30, 5)
    made = {f"png {mode}": encoded(of_mode(mode), "PNG") for mode in ("RGBA", "LA", "1", "L", "I;16", "P", "RGB")}
    others = ("CMYK", "LAB", "YCbCr", "I", "F", "PA", "RGBX")
    made |= {f"tiff {mode}": encoded(of_mode(mode), "TIFF") for mode in others}
    return made | {
        "png P bytes": encoded(of_mode("P"), "PNG", transparency=palette),
        "png P index": encoded(of_mode("P"), "PNG", transparency=7),
        "png RGB key": encoded(colours, "PNG", transparency=colours.getpixel((0, 0))),
        "png L key": encoded(of_mode("L"), "PNG", transparency=255),
        "png 1 key": encoded(of_mode("1"), "PNG", transparency=1),
        "png I;16 key": encoded(of_mode("I;16"), "PNG", transparency=300),
        "tiff RGBA": encoded(of_mode("RGBA"), "TIFF", compression="tiff_lzw"),
        "tiff LA": encoded(of_mode("LA"), "TIFF"),
        "webp RGBA": encoded(of_mode("RGBA"), "WEBP", lossless=True, exact=True),
        "gif index": encoded(of_mode("P"), "GIF", transparency=3),
    }


@pytest.fixture(scope="module")
def processor() -> Any:
    return AlignProcessor.from_pretrained(CHECKPOINT)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of Pillow, in transformers
@pytest.mark.parametrize("name", transparent())
def test_files_as_the_processor_of_the_checkpoint_reads_them(name: str, processor: Any, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(transparent()[name])
    config = json.loads((CHECKPOINT / "preprocessor_config.json").read_text())
    preprocessing = ImagePreprocessing.from_hub(config, "preprocessor_config.json")
    expected = processor(images=str(path), return_tensors="np")["pixel_values"]
    numpy.testing.assert_array_equal(preprocessing.normalize(preprocess([path], preprocessing)), expected)


def on_white(image: Any) -> numpy.ndarray:
    """What the processor makes of an image that is not a file if its configuration says ``do_convert_rgb``."""
    unscaled = {"do_rescale": False, "do_normalize": False, "include_top": False}
    found = EfficientNetImageProcessorPil(**small())([image], do_convert_rgb=True, return_tensors="np", **unscaled)
    return found["pixel_values"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("mode", "key"),
    [*ALPHA, ("P", 0), ("P", bytes(range(256))), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0)],
    ids=str,
)
def test_white_is_the_background_of_convert_to_rgb(mode: str, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = of_mode(mode)
    if key is not None:
        made.info["transparency"] = key
    config = ImagePreprocessing.from_hub(small(), "test")
    expected = on_white(made)
    monkeypatch.setattr(transparency, "BAND_PIXELS", 3 * made.width)  # bands of three rows
    numpy.testing.assert_array_equal(preprocess([made], config, WHITE), expected)
    dropped = preprocess([made], config)
    assert not numpy.array_equal(dropped, expected)
    numpy.testing.assert_array_equal(dropped, preprocess([of_mode(mode).convert("RGB")], config))


def test_arrays_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair of alpha and level, in bands of three rows."""
    array = numpy.empty((256, 256, 4), numpy.uint8)
    array[..., 3], array[..., 0] = numpy.mgrid[0:256, 0:256]
    array[..., 1], array[..., 2] = 255 - array[..., 0], 128
    expected = on_white(array)
    monkeypatch.setattr(transparency, "BAND_PIXELS", 3 * 256)
    config = ImagePreprocessing.from_hub(small(), "test")
    numpy.testing.assert_array_equal(preprocess([array], config, WHITE), expected)
    numpy.testing.assert_array_equal(preprocess([array], config), preprocess([array[..., :3]], config))


@pytest.mark.parametrize(
    ("alpha", "colour"), [("red", (255, 0, 0)), ("#0A141e", (10, 20, 30)), ("drop", (1, 2, 3)), ("black", (0, 0, 0))]
)
def test_the_background_is_any_colour(alpha: str, colour: tuple[int, int, int]) -> None:
    clear = Image.new("RGBA", (4, 5), (1, 2, 3, 0))
    options = ImageOptions(alpha=alpha)
    for source in (clear, encoded(clear, "PNG"), numpy.asarray(clear)):
        assert decode(source, options).getpixel((3, 4)) == colour
    opaque = noise(9, 9, 3)
    numpy.testing.assert_array_equal(preprocess([opaque], TYPICAL, options), preprocess([opaque], TYPICAL))


def test_transparency_that_pillow_cannot_lay_on_a_colour_is_an_input_error() -> None:
    palette = png_chunk(b"PLTE", bytes(6)), png_chunk(b"tRNS", bytes(300))
    file = png(2, 2, *palette, colour=PALETTE)
    with pytest.raises(InputError, match="cannot be converted to RGB"):
        decode(file, WHITE)
    assert decode(file).size == (2, 2)
