"""Inputs that are no images, damaged or too large. Each refusal is one line and says which input."""

from __future__ import annotations

import os
import random
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from align_runtime import images
from align_runtime.errors import InputError
from align_runtime.images import preprocess
from align_runtime.preprocessing import ImagePreprocessing
from support.image_configs import ALIGN, TYPICAL, small
from support.made_images import files, image, noise


def refuse(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preprocess([image(2, 2), source], TYPICAL)
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


def test_large_images_are_refused_from_their_header() -> None:
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
    refuse(b"12345678901", r"the image has 11 bytes; at most 10 are supported")


def test_large_images_and_arrays_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 346 * 346)
    refuse(Image.new("L", (346, 347)), r"the PIL image has 346 × 347 pixels; at most 119716 are supported")
    refuse(noise(347, 346, 3), r"the array has 346 × 347 pixels; at most 119716 are supported")


def test_extreme_aspect_ratios_do_not_allocate() -> None:
    shortest = ImagePreprocessing.from_hub({**ALIGN, "size": {"shortest_edge": 346}}, "test")
    with pytest.raises(InputError, match=r"input 0: the image is 1 × 65000 and would be resized to 346 × 22490000"):
        preprocess([Image.new("L", (1, 65_000))], shortest)
    largest = ImagePreprocessing.from_hub({**ALIGN, "size": {"max_height": 20, "max_width": 20}}, "test")
    with pytest.raises(InputError, match=r"would be resized to 0 × 20; sides must be at least 1"):
        preprocess([Image.new("L", (1, 65_000))], largest)
    with pytest.raises(InputError, match=r"the image is 1 × 1000000 and would be resized to 346 × 346"):
        preprocess([Image.new("L", (1, 1_000_000))], TYPICAL)  # 346 × 1,000,000 pixels in between


def test_pillow_globals_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 550)  # Image.open would refuse 40 × 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess([files()["jpeg"], files()["png RGB"], image(20, 20)], ImagePreprocessing.from_hub(small(), "test"))
    assert Image.MAX_IMAGE_PIXELS == 550


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.com/cat.jpg", r"'https://example.com/cat.jpg' is a URL, which is not fetched; download it"),
        ("s3://bucket/cat.jpg", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("", r"'' cannot be read|  does not exist|is not a regular file"),
        ("/no/such/image.jpg", r"/no/such/image.jpg does not exist"),
        ("nul\0character", r"'nul\\x00character' cannot be read: embedded null"),
        (Path("/"), r"/ is not a regular file"),
        (Path("/dev/zero"), r"/dev/zero is not a regular file"),
        (b"", r"the image is empty \(0 bytes\)"),
        (b"hello, I am no image", r"the image of 22 bytes is no image in a supported format \(JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", r"is no image in a supported format"),
        (None, r"a image cannot be a NoneType; supported are a path, bytes, a PIL image, or a numpy uint8 array"),
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
def test_what_is_no_image_is_refused(source: Any, message: str) -> None:
    refuse(source, message)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    refuse(tmp_path / "empty.png", re.escape(f"{tmp_path}/empty.png is empty (0 bytes)"))


@pytest.mark.parametrize("source", ["cat.jpg", b"data", Path("cat.jpg"), image(2, 2), noise(4, 4, 3), iter([])])
def test_a_single_image_is_not_a_list(source: Any) -> None:
    with pytest.raises(InputError, match=r"a list of images was expected, got \w+; pass \[image\]"):
        preprocess(source, TYPICAL)
