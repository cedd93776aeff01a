"""Pixels against transformers' Pillow-backed processor, called as the checkpoint's configuration does, bit for bit."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_runtime.errors import InputError
from align_runtime.image_options import FORMATS, ImageOptions
from align_runtime.images import decode, preprocess
from align_runtime.preprocessing import ImagePreprocessing
from support.image_configs import ALIGN, TYPICAL, small
from support.made_images import encoded, files, image, noise, of_mode

RESAMPLES = range(6)
ALIGN_RESAMPLE = 2  # bilinear, as ALIGN has it
ALL = ImageOptions(formats=FORMATS)


def oracle(images: Sequence[Any], config: dict[str, Any]) -> numpy.ndarray:
    """Pixels of transformers, uint8 (n, height, width, 3), before rescaling and normalization.

    The processor loads files with `load_image`, which turns them upright and into RGB. It takes other images as they
    are, and gives the model too many or too few channels where they are not RGB: those are made RGB here as in a file.
    """
    processor = EfficientNetImageProcessorPil(**config)
    unscaled = {"do_rescale": False, "do_normalize": False, "include_top": False}
    loaded = [
        load_image(image) if isinstance(image, Image.Image) and image.mode != "RGB" else image for image in images
    ]
    output = processor(processor.fetch_images(loaded), return_tensors="np", **unscaled)["pixel_values"]
    assert output.dtype == numpy.uint8
    return output.transpose(0, 2, 3, 1)


def assert_equal(images: Sequence[Any], config: dict[str, Any]) -> None:
    ours = preprocess(images, ImagePreprocessing.from_hub(config, "test"))
    numpy.testing.assert_array_equal(ours, oracle(images, config), strict=True)


def sizes() -> list[tuple[int, int]]:
    """210 (height, width) from 1 × 1 to 3000 × 4000, odd aspect ratios included."""
    edges = [(1, 1), (1, 2), (2, 1), (3, 3), (346, 346), (289, 289), (345, 347), (288, 290), (692, 692)]
    lines = [(1, 4000), (4000, 1), (1, 37), (37, 1), (2, 999), (999, 2), (7, 1500), (1500, 7)]
    large = [(3000, 4000), (4000, 3000)]
    draw = random.Random(1)
    some = [(draw.randint(1, 420), draw.randint(1, 420)) for _ in range(191)]
    return edges + lines + large + some


@pytest.mark.parametrize(
    "resample", [pytest.param(code, marks=() if code == ALIGN_RESAMPLE else pytest.mark.slow) for code in RESAMPLES]
)
def test_pixels_are_bit_equal_on_210_sizes(resample: int) -> None:
    assert len(set(sizes())) >= 200
    config = {**ALIGN, "resample": resample}
    for index, (height, width) in enumerate(sizes()):
        assert_equal([image(height, width, index)], config)


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize(
    "changes",
    [
        {"do_center_crop": False},
        {"do_resize": False},
        {"crop_size": 64},
        {"crop_size": {"height": 64, "width": 9}},
        {"crop_size": [8, 65]},
        {"size": 24, "default_to_square": False},
        {"size": {"shortest_edge": 17}},
        {"size": {"shortest_edge": 17, "longest_edge": 41}},
        {"size": {"max_height": 40, "max_width": 33}},
    ],
    ids=str,
)
def test_every_kind_of_size_and_crop(changes: dict[str, Any], resample: int) -> None:
    draw = random.Random(2)
    shapes = [(draw.randint(9, 90), draw.randint(9, 90)) for _ in range(12)] + [(17, 60), (60, 17), (24, 24)]
    for index, (height, width) in enumerate(shapes):
        assert_equal([image(height, width, index)], small(resample=resample, **changes))


MODES = [
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"),
    *("I", "F", "I;16", "I;16B", "I;16L", "I;16N"),
]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str) -> None:
    """In every resampling, with sizes from one pixel over stripes to larger than the output, odd and even."""
    shapes = [(41, 29), (1, 1), (1, 2), (2, 1), (1, 400), (400, 1), (7, 150), (150, 8), (23, 31), (64, 64), (345, 347)]
    for resample in RESAMPLES:
        for height, width in shapes:
            assert_equal([of_mode(mode, height, width)], small(resample=resample))
    assert_equal([of_mode(mode)], small(do_resize=False, crop_size=50))


def test_modes_that_pillow_cannot_make_rgb_are_refused() -> None:
    with pytest.raises(InputError, match="mode La"):
        preprocess([of_mode("La")], TYPICAL)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays(channels: int) -> None:
    """Of one channel as a grey image, of four without the alpha: the processor's own calls fail in the model."""
    for seed, (height, width) in enumerate([(41, 29), (5, 90), (346, 346)]):
        array = noise(height, width, channels, seed)
        pixels = preprocess([array], ImagePreprocessing.from_hub(small(), "test"))
        expected = oracle([numpy.repeat(array, 3, 2) if channels == 1 else array[..., :3]], small())
        numpy.testing.assert_array_equal(pixels, expected)
        numpy.testing.assert_array_equal(
            preprocess([array[::-1, ::2]], TYPICAL), preprocess([array[::-1, ::2].copy()], TYPICAL)
        )


def test_grey_array_without_a_channel_axis_equals_one_channel() -> None:
    array = noise(33, 44, 1)
    numpy.testing.assert_array_equal(preprocess([array[..., 0]], TYPICAL), preprocess([array], TYPICAL))


def test_arrays_with_few_rows_are_height_first() -> None:
    """An array with three rows and three channels has its channels last."""
    array = noise(3, 50, 3)
    numpy.testing.assert_array_equal(preprocess([array], TYPICAL), preprocess([Image.fromarray(array)], TYPICAL))


def saved(data: bytes, folder: Path) -> str:
    """The path of a file with the content `data`, as the processor takes it; without a suffix: the content decides."""
    (folder / "image").write_bytes(data)
    return str(folder / "image")


@pytest.mark.parametrize("name", files())
def test_encoded_images_are_those_that_pillow_opens(name: str, tmp_path: Path) -> None:
    data = files()[name]
    path = Path(saved(data, tmp_path))
    expected = oracle([str(path)], small())
    config = ImagePreprocessing.from_hub(small(), "test")
    with path.open("rb") as file, path.open("rb", buffering=0) as unbuffered:
        for source in (data, bytearray(data), memoryview(data), path, str(path), file, unbuffered, io.BytesIO(data)):
            numpy.testing.assert_array_equal(preprocess([source], config, ALL), expected)


class Socket:
    """A file object that returns a few bytes at a time, as a network stream does."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(min(size, 100))


def test_file_objects_are_read_from_their_position_to_their_end_and_stay_there() -> None:
    data = files()["png RGB"]
    expected = preprocess([data], TYPICAL)
    shifted = io.BytesIO(b"prefix" + data)
    shifted.seek(6)
    for source in (shifted, Socket(data)):
        numpy.testing.assert_array_equal(preprocess([source], TYPICAL), expected)
    assert shifted.tell() == 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_files_is_applied(orientation: int, kind: str, tmp_path: Path) -> None:
    source = image(30, 50)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(source, kind, exif=exif)
    assert decode(data, ALL).size == ((50, 30) if orientation < 5 else (30, 50))
    ours = preprocess([data], ImagePreprocessing.from_hub(small(), "test"), ALL)
    numpy.testing.assert_array_equal(ours, oracle([saved(data, tmp_path)], small()))


def test_orientation_of_a_transparent_palette(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(of_mode("P"), "PNG", exif=exif, transparency=bytes(range(256)))
    ours = preprocess([data], ImagePreprocessing.from_hub(small(), "test"))
    numpy.testing.assert_array_equal(ours, oracle([saved(data, tmp_path)], small()))


def test_a_pil_image_is_taken_as_it_is() -> None:
    """As in transformers: the orientation tag of an opened file is ignored, and the current frame is used."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert_equal([Image.open(io.BytesIO(encoded(image(30, 50), "JPEG", exif=exif)))], small())
    animation = Image.open(io.BytesIO(files()["gif animated"]))
    animation.seek(2)
    assert_equal([animation], small())
    assert not numpy.array_equal(preprocess([animation], TYPICAL), preprocess([files()["gif animated"]], TYPICAL))


def test_inputs_are_not_changed() -> None:
    array, made = noise(20, 20, 4), of_mode("P")
    made.info["transparency"] = 7
    before = (array.copy(), made.tobytes(), dict(made.info))
    preprocess([array, made], TYPICAL)
    assert numpy.array_equal(array, before[0])
    assert (made.tobytes(), made.info) == before[1:]


def test_many_kinds_at_once_and_none() -> None:
    mixed = [image(20, 30), files()["jpeg"], noise(12, 9, 4), of_mode("LA")]
    rows = [preprocess([one], TYPICAL)[0] for one in mixed]
    numpy.testing.assert_array_equal(preprocess(tuple(mixed), TYPICAL), numpy.stack(rows))
    empty = preprocess([], TYPICAL)
    assert empty.shape == (0, 289, 289, 3)
    assert empty.dtype == numpy.uint8


def test_threads_get_the_same_pixels() -> None:
    sources = list(files().values())
    expected = preprocess(sources, TYPICAL, ALL)
    results: list[numpy.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(preprocess(sources, TYPICAL, ALL))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(numpy.array_equal(result, expected) for result in results)


def test_decode_gives_an_rgb_image_and_does_not_copy_rgb() -> None:
    source = image(4, 5)
    assert decode(source) is source
    assert decode(noise(4, 5, 4)).mode == decode(files()["png LA"]).mode == "RGB"
