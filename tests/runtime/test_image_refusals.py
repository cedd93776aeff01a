"""Inputs that are not images, damaged or too large: each is an InputError of one line with the index of the input."""

from __future__ import annotations

import os
import random
import re
import struct
import warnings
import zlib
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from align_runtime.errors import InputError
from align_runtime.image_options import FORMATS, ImageOptions
from align_runtime.images import decode, preprocess
from align_runtime.preprocessing import ImagePreprocessing
from support.image_configs import ALIGN, TYPICAL, small
from support.made_images import files, image, noise

ALL = ImageOptions(formats=FORMATS)


def refuse(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preprocess([image(2, 2), source], TYPICAL, ALL)
    assert caught.value.index == 1
    assert "damaged" not in str(caught.value)  # nobody can tell it from what only this software cannot read
    assert str(caught.value).startswith("input 1: ")
    assert "\n" not in str(caught.value)


CANNOT = "cannot be decoded as"
MULTIPLE = ("mpo", "webp animated", "gif animated", "gif transparent", "tiff pages")


@pytest.mark.parametrize("name", files())
def test_truncated_files(name: str) -> None:
    data = files()[name]
    if name not in MULTIPLE:  # their first frame is complete
        refuse(data[: len(data) * 2 // 3], CANNOT)
    refuse(data[:20], CANNOT)


def test_truncation_is_named() -> None:
    refuse(files()["jpeg"][:-200], "cannot be decoded as JPEG: image file is truncated")
    refuse(files()["png RGB"][:-200], "cannot be decoded as PNG: image file is truncated")
    refuse(files()["ppm"][:-200], "cannot be decoded as PPM: image file is truncated")


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
                    outcomes.add(preprocess([bytes(damaged)], TYPICAL, ALL).shape)
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
        refuse(png_header(100_000, 100_000), "100000 × 100000 pixels")
        refuse(png_header(8192, 8193), "8192 × 8193 pixels")
        refuse(png_header(65_536, 1), "sides of at most 65535")
        refuse(png_header(8192, 8192), CANNOT)  # not too large


FEW = ImageOptions(max_pixels=1)  # and 16 MiB of other data


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, (1 << 30) + 1)  # sparse
    refuse(path, "large has 1073741825 bytes; expected at most 553648128")
    size = FEW.max_file_bytes + 1
    for data in (bytes(size), bytearray(size), memoryview(bytes(size))):
        with pytest.raises(InputError, match=f"the image has {size} bytes"):
            decode(data, FEW)
    with pytest.raises(InputError, match=f"the image has {2 * size} bytes"):
        decode(memoryview(numpy.zeros(size, numpy.int16)), FEW)


def test_files_without_an_end_are_not_read_to_the_end() -> None:
    class Endless:
        count = 0

        def read(self, size: int = -1, /) -> bytes:
            assert size > 0, "it would be read without a limit"
            self.count += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(InputError, match="or more bytes; expected at most 16777224"):
        decode(endless, FEW)
    assert endless.count <= 18 << 20


class Broken:
    """A file object whose `read` fails, or returns something other than bytes."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def read(self, size: int = -1, /) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def test_file_objects_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    closed = BytesIO(files()["jpeg"])
    closed.close()
    view = memoryview(files()["jpeg"])
    view.release()
    with (tmp_path / "text").open() as text:
        refuse(text, "binary mode")
    refuse(StringIO("text"), "binary mode")
    refuse(Broken(None), "returns NoneType")
    refuse(Broken(OSError("no disk")), "cannot be read: no disk")
    refuse(closed, "cannot be read")
    refuse(view, "memoryview cannot be read")
    refuse(BytesIO(), "is empty")
    refuse(BytesIO(b"hello, I am no image"), "not an image")
    read = BytesIO(files()["jpeg"])
    read.seek(0, 2)
    refuse(read, "is empty")  # it is read from its position on


def test_large_images_and_arrays_are_refused() -> None:
    options = ImageOptions(max_pixels=346 * 346)
    for source, name in ((Image.new("L", (346, 347)), "PIL image"), (noise(347, 346, 3), "array")):
        with pytest.raises(InputError, match=f"the {name} has 346 × 347 pixels; expected at most 119716"):
            decode(source, options)
    refuse(Image.new("L", (65_536, 1)), "the PIL image has 65536 × 1 pixels; expected sides of at most 65535")


def test_formats_that_are_not_allowed_are_named() -> None:
    """And not called unsupported: the message says how to decode them."""
    for name, kind in {"ppm": "PPM", "jpeg 2000": "JPEG2000", "avif": "AVIF"}.items():
        with pytest.raises(InputError, match=f"is in the format {kind}, which is not allowed; pass formats=.*'{kind}'"):
            decode(files()[name])
    with pytest.raises(InputError, match="is in the format GIF"):
        decode(files()["gif animated"], ImageOptions(formats=["jpeg"]))
    assert decode(files()["jpeg"], ImageOptions(formats=["jpeg"])).size == (30, 40)


def test_extreme_aspect_ratios_do_not_allocate() -> None:
    shortest = ImagePreprocessing.from_hub({**ALIGN, "size": {"shortest_edge": 346}}, "test")
    with pytest.raises(InputError, match="1 × 65000 .* 346 × 22490000"):
        preprocess([Image.new("L", (1, 65_000))], shortest)
    largest = ImagePreprocessing.from_hub({**ALIGN, "size": {"max_height": 20, "max_width": 20}}, "test")
    with pytest.raises(InputError, match="0 × 20"):
        preprocess([Image.new("L", (1, 65_000))], largest)
    wide = ImagePreprocessing.from_hub({**ALIGN, "size": {"height": 8, "width": 8192}}, "test")
    with pytest.raises(InputError, match="1 × 65000 .* 8192 × 8"):
        preprocess([Image.new("L", (1, 65_000))], wide)  # 8192 × 65,000 in between


def test_pillow_globals_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 550)  # Image.open would refuse 40 × 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess([files()["jpeg"], files()["png RGB"], image(20, 20)], ImagePreprocessing.from_hub(small(), "test"))
    assert Image.MAX_IMAGE_PIXELS == 550


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.com/cat.jpg", "URL"),
        ("s3://bucket/cat.jpg", "URL"),
        ("data:image/png;base64,AAAA", "URL"),
        ("", "the path is empty"),
        ("/no/such/image.jpg", "does not exist"),
        ("nul\0character", "cannot be read"),
        (Path("/"), "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (b"", "empty"),
        (b"hello, I am no image", "of 20 bytes is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not an image"),
        (None, "NoneType"),
        (bytearray(b"x"), "of 1 bytes is not an image"),
        (memoryview(b""), "empty"),
        (object(), "object"),
        ([[1, 2], [3, 4]], "list"),
        (numpy.zeros((4, 4, 3), numpy.float32), "float32"),
        (numpy.full((4, 4, 3), numpy.nan), "float64 .*NaN"),
        (numpy.zeros((4, 4, 3), numpy.int64), "int64"),
        (numpy.zeros((3, 40, 50), numpy.uint8), "3 × 40 × 50, channels first"),
        (numpy.zeros((1, 40, 50), numpy.uint8), "1 × 40 × 50, channels first"),
        (numpy.zeros((40, 50, 2), numpy.uint8), "40 × 50 × 2"),
        (numpy.zeros((2, 4, 4, 3), numpy.uint8), "2 × 4 × 4 × 3"),
        (numpy.zeros((0, 5, 3), numpy.uint8), "no pixels"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ],
)
def test_unsupported_inputs_are_refused(source: Any, message: str) -> None:
    refuse(source, message)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    refuse(tmp_path / "empty.png", re.escape(f"{tmp_path}/empty.png is empty"))


@pytest.mark.parametrize(
    "source",
    [
        *("cat.jpg", Path("cat.jpg"), b"data", bytearray(b"data"), memoryview(b"data"), BytesIO(b"data")),
        *(image(2, 2), noise(4, 4, 3), iter([])),
    ],
)
def test_a_single_image_is_not_a_list(source: Any) -> None:
    with pytest.raises(InputError, match="list of images"):
        preprocess(source, TYPICAL)
