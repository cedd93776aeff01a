"""Token ids, resized pixels and decoded files of the C++ runtime against `tokenizers` and Pillow, in bulk."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray
from PIL import Image

from align_runtime.errors import InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import decode
from align_runtime.tokenizer import Tokenizer
from align_runtime.tokenizer_file import AddedToken, TokenizerDescription
from support.hostile_images import png_chunk
from support.leaf_shim import SHIM, Shim, ShimTokenizer
from support.made_images import encoded, files, noise
from support.text_samples import SPECIAL, fuzzed_texts, vocabulary
from vectors.make import ADDED, texts

CPP = Path(__file__).parents[2] / "runtime" / "cpp"
WHOLE = "ALIGN_WHOLE_SWEEPS" in os.environ
LENGTH = 64
BACKGROUND = (10, 128, 254)
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7


@pytest.fixture(scope="module")
def shim() -> Shim:
    if not SHIM.exists():
        pytest.skip("the C++ runtime is not built; run `make cpp`")
    return Shim()


def description(**changes: Any) -> TokenizerDescription:
    ids = {token: index for index, token in enumerate(vocabulary())}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = [AddedToken(ids[token], token, **plain | {"special": True}) for token in SPECIAL]
    following = len(ids)
    for token, flags in ADDED:
        added.append(AddedToken(ids.get(token, following), token, **plain | flags))
        following += token not in ids
    facts: dict[str, Any] = {"handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return TokenizerDescription(ids, "[UNK]", "[CLS]", "[SEP]", **facts | changes, added=tuple(added))


def assert_same_ids(shim: Shim, folder: Path, samples: list[str], **changes: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(description(**changes).to_json()), encoding="utf-8")
    python, native = Tokenizer.from_file(path, LENGTH, 0), ShimTokenizer(shim, path.read_bytes(), LENGTH)
    for start in range(0, len(samples), 20_000):
        part = samples[start : start + 20_000]
        for text, ours, theirs in zip(part, native.encode(part), python.encode(part), strict=True):
            assert ours == theirs.tolist(), ascii(text)


def test_every_code_point(shim: Shim, tmp_path: Path) -> None:
    """Behind the alphabets one in 29, unless ALIGN_WHOLE_SWEEPS is set."""
    step = 1 if WHOLE else 29
    points = [*range(0x3100), *range(0x3100, 0xD800, step), *range(0xE000, 0x110000, step)]
    assert_same_ids(shim, tmp_path, [f"a{point}b {point} x{point}" for point in map(chr, points)])


def mixed_texts(count: int) -> list[str]:
    """Added tokens beside each other, spaces of all kinds and marks that change places."""
    draw = random.Random(3)
    parts = [token for token, _ in ADDED] + ["photo", "É", "e\u0301", "  ", "\u3000", "\u2028", "_", "-", "a", ".", "<"]
    parts += ["\u200d", "\u0bd7", "\U0001d165\u0301", "\u302e\u0316\u0301", "ß", "\uac01", "PHOTO BOOTH", "\u0130"]
    return ["".join(draw.choice(parts) for _ in range(draw.randint(1, 9))) for _ in range(count)]


def test_20000_fuzzed_texts(shim: Shim, tmp_path: Path) -> None:
    assert_same_ids(shim, tmp_path, [*fuzzed_texts(20_000, seed=7), *mixed_texts(5000), *texts()])


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("strip_accents", [False, True, None])
@pytest.mark.parametrize("handle_chinese_chars", [False, True])
def test_other_normalizations(
    lowercase: bool, strip_accents: bool | None, handle_chinese_chars: bool, shim: Shim, tmp_path: Path
) -> None:
    flags = {"lowercase": lowercase, "strip_accents": strip_accents, "handle_chinese_chars": handle_chinese_chars}
    assert_same_ids(shim, tmp_path, [*fuzzed_texts(1500, seed=8), *mixed_texts(1500)], **flags)


@pytest.mark.slow
def test_the_tables_of_unicode_are_those_of_the_package() -> None:
    """Made anew where the package is another release than the file names, or where ALIGN_WHOLE_SWEEPS is set."""
    committed = (CPP / "src" / "unicode_tables.cpp").read_text(encoding="utf-8")
    if not WHOLE and f"tokenizers {tokenizers.__version__};" in committed.splitlines()[0]:
        return
    program = "import generate_unicode_tables as g, sys; sys.stdout.write(g.table())"
    made = subprocess.run(
        [sys.executable, "-c", program], cwd=CPP, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert made.stdout == committed


@pytest.mark.parametrize("code", range(6))
def test_pixels_of_200_sizes(code: int, shim: Shim) -> None:
    draw = random.Random(code)
    for index in range(200):
        width, height, new_width, new_height = (draw.randint(1, draw.choice((9, 120, 400))) for _ in range(4))
        channels = (1, 3, 4)[index % 3]
        array = noise(height, width, channels, index)
        rgb = np.ascontiguousarray(array[..., :3] if channels > 1 else array.repeat(3, axis=2))
        size = (new_width, draw.choice((new_height, new_height, new_height, height)))
        theirs = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling(code)))
        ours = np.empty_like(theirs)
        for plain in (False, True):
            shim.resample(array, size, code, plain, ours)
            np.testing.assert_array_equal(ours, theirs, f"{array.shape} to {size}")


def assert_same_image(shim: Shim, data: bytes, background: tuple[int, int, int] | None) -> None:
    """The same pixels, or both refuse."""
    alpha = "drop" if background is None else "#{:02x}{:02x}{:02x}".format(*background)
    theirs: NDArray[np.uint8] | None
    ours: NDArray[np.uint8] | None
    try:
        theirs = np.asarray(decode(data, ImageOptions(alpha, ("JPEG", "PNG"))))
    except InputError:
        theirs = None
    try:
        ours = shim.decode(data, background)
    except InputError:
        ours = None
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        np.testing.assert_array_equal(ours, theirs)


def made_png(draw: random.Random) -> bytes:
    """A PNG of any kind: bits, colours, filters, interlaced or not, transparency, an orientation."""
    bits, colour = draw.choice(
        [(1, 0), (2, 0), (4, 0), (1, 3), (2, 3), (4, 3), *((b, c) for b in (8, 16) for c in (0, 2, 4, 6)), (8, 3)]
    )
    width, height, interlaced = draw.randint(1, 40), draw.randint(1, 40), draw.random() < 0.5
    pixel_bits = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = b""
    for left, top, right, down in PASSES if interlaced else ((0, 0, 1, 1),):
        across, along = -(-(width - left) // right), -(-(height - top) // down)
        for _ in range(along if across > 0 else 0):
            rows += bytes([draw.randrange(5)]) + draw.randbytes((across * pixel_bits + 7) // 8)
    beside = []
    if colour == 3:
        beside.append(png_chunk(b"PLTE", draw.randbytes(3 * draw.randint(0, 256))))
    if draw.random() < 0.5:
        count = {0: 2, 2: 6}.get(colour) or draw.randint(1, 256)
        beside.append(png_chunk(b"tRNS", draw.randbytes(count)))
    exif = Image.Exif()
    exif[0x112] = draw.randint(0, 9)
    beside.append(png_chunk(b"eXIf", exif.tobytes()))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    body = [png_chunk(b"IHDR", header), *beside, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("background", [None, BACKGROUND], ids=["drop", "colour"])
def test_png_of_any_kind(background: tuple[int, int, int] | None, shim: Shim) -> None:
    draw = random.Random(4)
    for _ in range(500):
        assert_same_image(shim, made_png(draw), background)


def test_jpeg_of_any_kind(shim: Shim) -> None:
    draw = random.Random(5)
    for index in range(150):
        mode = draw.choice(["RGB", "RGB", "L", "CMYK"])
        width, height = draw.randint(16, 200), draw.randint(16, 200)
        data = noise(height, width, {"RGB": 3, "L": 1, "CMYK": 4}[mode], index) // 2
        options: dict[str, Any] = {"quality": draw.randint(5, 98), "progressive": draw.random() < 0.4}
        if mode == "RGB":
            options["subsampling"] = draw.choice(["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
        buffer = io.BytesIO()
        Image.frombytes(mode, (width, height), data.tobytes()).save(buffer, "JPEG", **options)
        assert_same_image(shim, buffer.getvalue(), None)


def test_damaged_files_are_taken_or_refused_as_in_python(shim: Shim) -> None:
    draw = random.Random(6)
    sources = [data for name, data in files().items() if name.startswith(("png", "jpeg CMYK", "mpo"))]
    sources.append(encoded(Image.fromarray(noise(60, 70, 3) // 3), "JPEG"))  # a damaged progressive file may differ
    for _ in range(3000):
        data = bytearray(draw.choice(sources))
        if draw.random() < 0.3:
            del data[draw.randrange(1, len(data)) :]
        for _ in range(draw.choice([0, 1, 1, 2, 5, 20])):
            data[draw.randrange(len(data))] = draw.choice([0, 255, draw.randrange(256)])
        assert_same_image(shim, bytes(data), draw.choice([None, BACKGROUND]))
