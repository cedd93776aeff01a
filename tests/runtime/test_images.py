"""Pixels against transformers' Pillow-backed EfficientNetImageProcessor, bit for bit, and every refusal."""

from __future__ import annotations

import functools
import io
import os
import random
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image, ImageOps
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from align_runtime import images
from align_runtime.errors import InputError
from align_runtime.images import decode, preprocess
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
RESAMPLES = range(6)


def small(**changes: Any) -> dict[str, Any]:
    """A configuration with a small output, so that many pictures can be tried."""
    return {**ALIGN, "size": {"height": 23, "width": 31}, "crop_size": {"height": 19, "width": 27}, **changes}


def oracle(pictures: Sequence[Any], config: dict[str, Any]) -> numpy.ndarray:
    """uint8 [n, height, width, 3] of transformers, before rescaling and normalisation."""
    processor = EfficientNetImageProcessorPil(**config)
    unscaled = {"do_rescale": False, "do_normalize": False, "include_top": False}
    output = processor(list(pictures), do_convert_rgb=True, return_tensors="np", **unscaled)["pixel_values"]
    assert output.dtype == numpy.uint8
    return output.transpose(0, 2, 3, 1)


def assert_equal(pictures: Sequence[Any], config: dict[str, Any]) -> None:
    ours = preprocess(pictures, ImagePreprocessing.from_hub(config, "test"))
    numpy.testing.assert_array_equal(ours, oracle(pictures, config), strict=True)


def noise(height: int, width: int, channels: int, seed: int = 0) -> numpy.ndarray:
    """uint8 noise; half of the levels are 0 or 255, so that filters overshoot and are clipped."""
    clipped = (numpy.arange(256) * 2 - 128).clip(0, 255).astype(numpy.uint8)
    levels = numpy.frombuffer(numpy.random.default_rng(seed).bytes(height * width * channels), numpy.uint8)
    return clipped.take(levels).reshape(height, width, channels)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(height, width, 3, seed))


def sizes() -> list[tuple[int, int]]:
    """210 (height, width) from 1 × 1 to 3000 × 4000, odd aspect ratios included."""
    edges = [(1, 1), (1, 2), (2, 1), (3, 3), (346, 346), (289, 289), (345, 347), (288, 290), (692, 692)]
    lines = [(1, 4000), (4000, 1), (1, 37), (37, 1), (2, 999), (999, 2), (7, 1500), (1500, 7)]
    large = [(3000, 4000), (4000, 3000)]
    draw = random.Random(1)
    some = [(draw.randint(1, 420), draw.randint(1, 420)) for _ in range(191)]
    return edges + lines + large + some


@pytest.mark.parametrize("resample", RESAMPLES)
def test_pixels_are_bit_equal_on_210_sizes(resample: int) -> None:
    assert len(set(sizes())) >= 200
    config = {**ALIGN, "resample": resample}
    for index, (height, width) in enumerate(sizes()):
        assert_equal([picture(height, width, index)], config)


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
        assert_equal([picture(height, width, index)], small(resample=resample, **changes))


def of_mode(mode: str, height: int = 41, width: int = 29) -> Image.Image:
    bands = {"1": 1, "L": 1, "P": 1, "LA": 2, "PA": 2, "La": 2}
    if mode in ("I", "F"):
        values = numpy.random.default_rng(3).integers(-300, 700, (height, width))
        return Image.fromarray(values.astype(numpy.int32 if mode == "I" else numpy.float32))
    if mode.startswith("I;16"):
        values = numpy.random.default_rng(3).integers(0, 600, (height, width)).astype(numpy.uint16)
        data = values.astype(">u2" if mode.endswith("B") else "<u2").tobytes()
        return Image.frombytes(mode, (width, height), data)
    if mode == "1":
        return Image.fromarray(noise(height, width, 1)[..., 0] > 100)
    count = bands.get(mode, 4 if mode in ("RGBA", "RGBa", "RGBX", "CMYK") else 3)
    made = Image.frombytes(mode, (width, height), noise(height, width, count).tobytes())
    if mode in ("P", "PA"):
        made.putpalette(noise(256, 3, 1, 4).tobytes())
    return made


def with_transparency(mode: str, transparency: int | bytes | tuple[int, ...]) -> Image.Image:
    made = of_mode(mode)
    made.info["transparency"] = transparency
    return made


MODES = [
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"),
    *("I", "F", "I;16", "I;16B", "I;16L", "I;16N"),
]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str) -> None:
    """At every resampling, from one pixel over stripes to larger than the output, odd and even."""
    shapes = [(41, 29), (1, 1), (1, 2), (2, 1), (1, 400), (400, 1), (7, 150), (150, 8), (23, 31), (64, 64), (345, 347)]
    for resample in RESAMPLES:
        for height, width in shapes:
            assert_equal([of_mode(mode, height, width)], small(resample=resample))
    assert_equal([of_mode(mode)], small(do_resize=False, crop_size=50))


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [("P", 0), ("P", bytes(range(256))), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0)],
    ids=["P-index", "P-bytes", "L", "RGB", "1"],
)
def test_transparency_in_info_is_laid_on_white(mode: str, transparency: Any) -> None:
    made = with_transparency(mode, transparency)
    assert_equal([made], small())
    assert not numpy.array_equal(preprocess([made], TYPICAL), preprocess([of_mode(mode)], TYPICAL))


def test_modes_that_pillow_cannot_make_rgb_are_refused() -> None:
    with pytest.raises(InputError, match=r"input 0: the PIL image \(mode La\).*conversion from La to L not supported"):
        preprocess([of_mode("La")], TYPICAL)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays(channels: int) -> None:
    for seed, (height, width) in enumerate([(41, 29), (5, 90), (346, 346)]):
        array = noise(height, width, channels, seed)
        assert_equal([array], small())
        numpy.testing.assert_array_equal(
            preprocess([array[::-1, ::2]], TYPICAL), preprocess([array[::-1, ::2].copy()], TYPICAL)
        )


def test_array_transparency_in_bands_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every (alpha, level) pair, through bands of three rows."""
    array = numpy.empty((256, 256, 4), numpy.uint8)
    array[..., 3], array[..., 0] = numpy.mgrid[0:256, 0:256]
    array[..., 1], array[..., 2] = 255 - array[..., 0], 128
    monkeypatch.setattr(images, "_BAND_PIXELS", 3 * 256)
    assert_equal([array], small(do_resize=False, crop_size=256))


def test_grey_array_without_a_channel_axis_equals_one_channel() -> None:
    array = noise(33, 44, 1)
    numpy.testing.assert_array_equal(preprocess([array[..., 0]], TYPICAL), preprocess([array], TYPICAL))


def test_arrays_with_few_rows_are_height_first() -> None:
    """Three rows are rows, not channels, where the last axis is a channel axis too."""
    array = noise(3, 50, 3)
    numpy.testing.assert_array_equal(preprocess([array], TYPICAL), preprocess([Image.fromarray(array)], TYPICAL))


def encoded(source: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    source.copy().save(buffer, kind, **options)  # a copy: save() leaves encoder settings behind in the image
    return buffer.getvalue()


@functools.cache
def files() -> dict[str, bytes]:
    frames = [picture(40, 30, seed).convert("P") for seed in range(3)]
    animated = {"save_all": True, "append_images": frames[1:]}
    first, second = picture(40, 30, 5), picture(40, 30, 6)
    return {
        "jpeg": encoded(first, "JPEG"),
        "jpeg progressive": encoded(first, "JPEG", progressive=True),
        "jpeg grey": encoded(of_mode("L"), "JPEG"),
        "jpeg CMYK": encoded(of_mode("CMYK"), "JPEG"),
        "mpo": encoded(first, "MPO", save_all=True, append_images=[second.copy()]),
        **{f"png {mode}": encoded(of_mode(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
        "png P transparent": encoded(of_mode("P"), "PNG", transparency=bytes(range(256))),
        "png RGB transparent": encoded(first, "PNG", transparency=first.getpixel((0, 0))),
        "webp": encoded(first, "WEBP"),
        "webp RGBA": encoded(of_mode("RGBA"), "WEBP", lossless=True, exact=True),
        "webp animated": encoded(first, "WEBP", save_all=True, append_images=[second.copy()]),
        "gif animated": encoded(frames[0], "GIF", **animated),
        "gif transparent": encoded(frames[0], "GIF", transparency=3, **animated),
        "bmp": encoded(first, "BMP"),
        "tiff": encoded(first, "TIFF"),
        "tiff CMYK": encoded(of_mode("CMYK"), "TIFF", compression="tiff_lzw"),
        "tiff F": encoded(of_mode("F"), "TIFF"),
        "tiff pages": encoded(first, "TIFF", save_all=True, append_images=[second.copy()]),
        "ppm": encoded(first, "PPM"),
        "jpeg 2000": encoded(first, "JPEG2000"),
        "avif": encoded(first, "AVIF"),
    }


def opened(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("name", files())
def test_paths_and_bytes_are_the_picture_that_pillow_opens(name: str, tmp_path: Path) -> None:
    data = files()[name]
    path = tmp_path / "picture"  # without a suffix: the contents decide
    path.write_bytes(data)
    expected = oracle([opened(data)], small())
    for source in (data, path, str(path)):
        numpy.testing.assert_array_equal(preprocess([source], ImagePreprocessing.from_hub(small(), "test")), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_files_is_applied(orientation: int, kind: str) -> None:
    source = picture(30, 50)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(source, kind, exif=exif)
    assert opened(data).size == ((50, 30) if orientation < 5 else (30, 50))
    ours = preprocess([data], ImagePreprocessing.from_hub(small(), "test"))
    numpy.testing.assert_array_equal(ours, oracle([opened(data)], small()))


def test_orientation_of_a_transparent_palette() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(of_mode("P"), "PNG", exif=exif, transparency=bytes(range(256)))
    ours = preprocess([data], ImagePreprocessing.from_hub(small(), "test"))
    numpy.testing.assert_array_equal(ours, oracle([opened(data)], small()))


def test_a_pil_image_is_taken_as_it_is() -> None:
    """As transformers does: the orientation tag of an opened file is not applied, a later frame is not rewound."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert_equal([Image.open(io.BytesIO(encoded(picture(30, 50), "JPEG", exif=exif)))], small())
    animation = Image.open(io.BytesIO(files()["gif animated"]))
    animation.seek(2)
    assert_equal([animation], small())
    assert not numpy.array_equal(preprocess([animation], TYPICAL), preprocess([files()["gif animated"]], TYPICAL))


def test_inputs_are_not_changed() -> None:
    array, made = noise(20, 20, 4), with_transparency("P", 7)
    before = (array.copy(), made.tobytes(), dict(made.info))
    preprocess([array, made], TYPICAL)
    assert numpy.array_equal(array, before[0])
    assert (made.tobytes(), made.info) == before[1:]


def test_many_kinds_at_once_and_none() -> None:
    mixed = [picture(20, 30), files()["jpeg"], noise(12, 9, 4), of_mode("LA")]
    rows = [preprocess([one], TYPICAL)[0] for one in mixed]
    numpy.testing.assert_array_equal(preprocess(tuple(mixed), TYPICAL), numpy.stack(rows))
    empty = preprocess([], TYPICAL)
    assert empty.shape == (0, 289, 289, 3)
    assert empty.dtype == numpy.uint8


def test_threads_get_the_same_pixels() -> None:
    sources = list(files().values())
    expected = preprocess(sources, TYPICAL)
    results: list[numpy.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(preprocess(sources, TYPICAL))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(numpy.array_equal(result, expected) for result in results)


def test_decode_gives_an_rgb_image_and_does_not_copy_rgb() -> None:
    source = picture(4, 5)
    assert decode(source) is source
    assert decode(noise(4, 5, 4)).mode == decode(files()["png LA"]).mode == "RGB"


# Refusals. Each of them is one line and says which input.


def refuse(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preprocess([picture(2, 2), source], TYPICAL)
    assert caught.value.index == 1
    assert str(caught.value).startswith("input 1: ")
    assert "\n" not in str(caught.value)


MULTIPLE = ("mpo", "webp animated", "gif animated", "gif transparent", "tiff pages")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's word on a TIFF that ends in its tags
@pytest.mark.parametrize("name", files())
def test_truncated_files(name: str) -> None:
    data = files()[name]
    if name not in MULTIPLE:  # their first frame is whole
        refuse(data[: len(data) * 2 // 3], "truncated|damaged")
    refuse(data[:20], "truncated|damaged")


def test_truncation_is_named() -> None:
    refuse(files()["jpeg"][:-200], r"truncated or damaged: image file is truncated")
    refuse(files()["png RGB"][:-200], r"truncated or damaged: image file is truncated")
    refuse(files()["ppm"][:-200], r"truncated or damaged: image file is truncated")


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_are_decoded_or_refused(seed: int) -> None:
    """Bytes overwritten at random: whatever the plugins raise, the caller sees InputError or pixels."""
    draw = random.Random(seed)
    outcomes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged metadata
        for data in files().values():
            for _ in range(10):
                damaged = bytearray(data)
                for _ in range(draw.choice([1, 4, 16])):
                    damaged[draw.randrange(len(damaged))] = draw.randrange(256)
                try:
                    outcomes.add(preprocess([bytes(damaged)], TYPICAL).shape)
                except InputError:
                    outcomes.add("refused")
    assert outcomes == {(1, 289, 289, 3), "refused"}


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims `width` × `height` black pixels and has none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_large_pictures_are_refused_from_their_header() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse(png_header(100_000, 100_000), r"100000 × 100000 pixels; at most 178956970 are supported")
        refuse(png_header(13_378, 13_378), r"13378 × 13378 pixels; at most 178956970")
        refuse(png_header(9500, 9500), r"truncated or damaged")  # allowed; Pillow alone would warn


def test_large_files_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, (1 << 30) + 1)  # sparse
    refuse(path, r"large has 1073741825 bytes; at most 1073741824 are supported")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    refuse(b"12345678901", r"the picture has 11 bytes; at most 10 are supported")


def test_large_images_and_arrays_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 346 * 346)
    refuse(Image.new("L", (346, 347)), r"the PIL image has 346 × 347 pixels; at most 119716 are supported")
    refuse(noise(347, 346, 3), r"the array has 346 × 347 pixels; at most 119716 are supported")


def test_extreme_aspect_ratios_do_not_allocate() -> None:
    shortest = ImagePreprocessing.from_hub({**ALIGN, "size": {"shortest_edge": 346}}, "test")
    with pytest.raises(InputError, match=r"input 0: the picture is 1 × 65000 and would be resized to 346 × 22490000"):
        preprocess([Image.new("L", (1, 65_000))], shortest)
    largest = ImagePreprocessing.from_hub({**ALIGN, "size": {"max_height": 20, "max_width": 20}}, "test")
    with pytest.raises(InputError, match=r"would be resized to 0 × 20; sides must be at least 1"):
        preprocess([Image.new("L", (1, 65_000))], largest)
    with pytest.raises(InputError, match=r"the picture is 1 × 1000000 and would be resized to 346 × 346"):
        preprocess([Image.new("L", (1, 1_000_000))], TYPICAL)  # 346 × 1,000,000 pixels in between


def test_pillow_globals_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 550)  # Image.open would refuse 40 × 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess([files()["jpeg"], files()["png RGB"], picture(20, 20)], ImagePreprocessing.from_hub(small(), "test"))
    assert Image.MAX_IMAGE_PIXELS == 550


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.com/cat.jpg", r"'https://example.com/cat.jpg' is a URL, which is not fetched; download it"),
        ("s3://bucket/cat.jpg", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("", r"'' cannot be read|  does not exist|is not a regular file"),
        ("/no/such/picture.jpg", r"/no/such/picture.jpg does not exist"),
        ("nul\0character", r"'nul\\x00character' cannot be read: embedded null"),
        (Path("/"), r"/ is not a regular file"),
        (Path("/dev/zero"), r"/dev/zero is not a regular file"),
        (b"", r"the picture is empty \(0 bytes\)"),
        (b"hello, I am no picture", r"the picture of 22 bytes is no picture in a supported format \(JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", r"is no picture in a supported format"),
        (None, r"a picture cannot be a NoneType; supported are a path, bytes, a PIL image, or a numpy uint8 array"),
        (bytearray(b"x"), r"cannot be a bytearray"),
        ([[1, 2], [3, 4]], r"cannot be a list"),
        (
            numpy.zeros((4, 4, 3), numpy.float32),
            r"the array is float32; pass uint8 levels 0–255, e\.g\. \(array \* 255",
        ),
        (numpy.full((4, 4, 3), numpy.nan), r"the array is float64 and holds NaN; pass uint8"),
        (numpy.zeros((4, 4, 3), numpy.int64), r"the array is int64; pass uint8"),
        (numpy.zeros((3, 40, 50), numpy.uint8), r"3 × 40 × 50, channels first; pass array\.transpose\(1, 2, 0\)"),
        (numpy.zeros((1, 40, 50), numpy.uint8), r"1 × 40 × 50, channels first"),
        (numpy.zeros((40, 50, 2), numpy.uint8), r"the array is 40 × 50 × 2; supported is height × width × 1, 3 or 4"),
        (numpy.zeros((2, 4, 4, 3), numpy.uint8), r"the array is 2 × 4 × 4 × 3; supported"),
        (numpy.zeros((0, 5, 3), numpy.uint8), r"the array has no pixels \(5 × 0\)"),
        (Image.new("RGB", (0, 5)), r"the PIL image has no pixels \(0 × 5\)"),
    ],
)
def test_what_is_no_picture_is_refused(source: Any, message: str) -> None:
    refuse(source, message)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    refuse(tmp_path / "empty.png", re.escape(f"{tmp_path}/empty.png is empty (0 bytes)"))


@pytest.mark.parametrize("source", ["cat.jpg", b"data", Path("cat.jpg"), picture(2, 2), noise(4, 4, 3), iter([])])
def test_a_single_picture_is_not_a_list(source: Any) -> None:
    with pytest.raises(InputError, match=r"a list of pictures was expected, got \w+; pass \[picture\]"):
        preprocess(source, TYPICAL)
