"""Encoded images from a stranger: bounded time and memory, and an error of ours where one is refused."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib

import numpy
import pytest
from PIL import Image, PngImagePlugin

from align_runtime.errors import InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import decode, preprocess
from support import hostile_images as hostile
from support.bounded_runs import cost_of
from support.image_configs import TYPICAL

MAX_SECONDS = 10.0  # of CPU time on a loaded machine; the worst of these takes 3 on an idle one
MAX_MEBIBYTES = 500  # for all of them: 324 are 8192 × 8192 grey pixels with their RGB copy, others are the files
SETUP = """
import io, struct
from PIL import Image
from align_runtime.errors import InputError
from align_runtime.images import decode
from support import hostile_images as hostile
for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):  # plugins are imported before they are measured
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, kind)
    decode(file.getvalue())
BOMB = hostile.bomb(1 << 28)
"""
CODE = """
import json
found = {}
for name, data in CASES.items():
    data = eval(data)
    start = time.process_time()
    try:
        found[name] = str(decode(data).size)
    except InputError as error:
        found[name] = str(error)
    found[name] = found[name], time.process_time() - start
print(json.dumps(found))
"""

EXPENSIVE = {
    "scans of JPEG": ("hostile.jpeg(3000, 3000, 4000)", "has 4000 scans; expected at most 64"),
    "as many scans as allowed": ("hostile.jpeg(8192, 8192, 64)", "(8192, 8192)"),
    "segments of JPEG": (
        "hostile.jpeg(8, 8, 1, [hostile.jpeg_segment(0xFE, b'')] * (1 << 15))",
        "has 16385 segments; expected at most 16384",
    ),
    "FF bytes in JPEG": ("hostile.jpeg(8, 8, 1)[:-2] + b'\\xff' * (1 << 24)", "fill bytes; expected at most 4096"),
    "canvas of WebP": ("hostile.webp(13377, 13377)", "has 13377 × 13377 pixels; expected at most 67108864"),
    "lossless WebP": ("hostile.webp(13377, 13377, b'VP8L')", "has 13377 × 13377 pixels"),
    "frame outside of the screen of GIF": ("hostile.gif(9, 9, (0, 0, 60000, 60000))", "has 60000 × 60000 pixels"),
    "extensions of GIF": ("hostile.gif(9, 9, (0, 0, 9, 9), b'!\\xfe\\x00' * (1 << 19))", "has 262145 blocks"),
    "run lengths that give nothing": ("hostile.bmp(1000, 1000, 1, b'\\xff\\x00' * 3500000)", "run-length encoded BMP"),
    "lines filled byte by byte": ("hostile.bmp(2000, 2000, 1, b'\\x01\\x05\\x00\\x00' * 2000)", "(2000, 2000)"),
    "pixels decompressed without an end": ("hostile.png(8, 8, pixels=BOMB)", "(8, 8)"),
    "compressed text": (
        "hostile.png(8, 8, *[hostile.png_chunk(b'zTXt', b'XML:com.adobe.xmp\\0\\0' + BOMB)] * 9)",
        "(8, 8)",
    ),
    "chunks of PNG": ("hostile.png(8, 8, *[hostile.png_chunk(b'IDAT')] * (1 << 19))", "has 262145 chunks"),
    "strips that overlap": (
        "hostile.grey_tiff(8000, 8000, (278, 4, 1, 7999), (273, 4, 99999, b'\\x08\\0\\0\\0' * 99999))",
        "has 99999 strips or tiles; expected at most 2",
    ),
    "a tile of terabytes": (
        "hostile.grey_tiff(8, 8, (322, 4, 1, 1 << 30), (323, 4, 1, 1 << 30), (324, 4, 1, 8), (325, 4, 1, 64))",
        "has tiles of 1073741824 × 1073741824",
    ),
    "a deflated strip": ("hostile.grey_tiff(8, 8, (259, 3, 1, 8), data=BOMB)", "(8, 8)"),
    "tags that share their bytes": (
        "hostile.grey_tiff(8, 8, *[(tag, 7, 1 << 20, 8) for tag in range(1000, 60000)], data=bytes(1 << 20))",
        "(8, 8)",
    ),
    "directories in a circle": ("hostile.grey_tiff(8, 8)[:-4] + struct.pack('<L', 72)", "(8, 8)"),
}


@pytest.fixture(scope="module")
def expensive() -> tuple[dict[str, tuple[str, float]], float]:
    """What each of `EXPENSIVE` gives and its CPU seconds, and the memory of all in MiB, in a process of their own."""
    cases = {name: data for name, (data, _) in EXPENSIVE.items()}
    cost = cost_of(SETUP, f"CASES = {cases!r}\n{CODE}", timeout=200)
    return json.loads(cost.output), cost.mebibytes


@pytest.mark.parametrize("name", EXPENSIVE)
def test_time_is_bounded(name: str, expensive: tuple[dict[str, tuple[str, float]], float]) -> None:
    output, seconds = expensive[0][name]
    assert EXPENSIVE[name][1] in output
    assert seconds < MAX_SECONDS


def test_memory_is_bounded(expensive: tuple[dict[str, tuple[str, float]], float]) -> None:
    assert expensive[1] < MAX_MEBIBYTES


def test_scans_in_a_strip_are_counted_too() -> None:
    scans = hostile.jpeg(64, 64, 200)
    with pytest.raises(InputError, match="has 200 scans; expected at most 64"):
        decode(hostile.grey_tiff(64, 64, (259, 3, 1, 7), data=scans))


@pytest.mark.slow
def test_forty_megapixels_with_transparency_in_bands() -> None:
    """1-bit, 40 megapixels, on a colour: its bytes, the RGB copy and a band; 495 MiB when composited whole."""
    file = io.BytesIO()
    Image.new("1", (8000, 5000), 1).save(file, "PNG", transparency=0)
    setup = f"{SETUP}\nfrom align_runtime.image_options import ImageOptions\ndata = {file.getvalue()!r}"
    cost = cost_of(setup, "print(decode(data, ImageOptions(alpha='red')).size)")
    assert cost.output == "(8000, 5000)"
    assert cost.mebibytes < 280


def test_too_little_memory_is_an_error_of_the_image() -> None:
    """Below the limit of pixels, but more than the process may have."""
    limit = """
data = hostile.png(13000, 5000)
with open("/proc/self/statm") as statistics:
    size = int(statistics.read().split()[0]) * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
"""
    cost = cost_of(SETUP, f"{limit}\ntry:\n    decode(data)\nexcept InputError as error:\n    print(error)")
    assert "needs more memory than there is; scale it down or set a lower max_pixels=" in cost.output


# ── what stands beside the pixels ────────────────────────────────────────────────────────────────────────────────────

IMAGE = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=numpy.uint8))


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    IMAGE.save(file, kind, **options)
    return file.getvalue()


def with_chunks(*chunks: bytes) -> bytes:
    data = saved("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def with_segments(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments) + saved("JPEG")[2:]


def exif(*tags: hostile.Tag, order: str = "<") -> bytes:
    return b"Exif\x00\x00" + hostile.tiff(tags, order=order)


ODD_TAG = (0x0110, 3, 1, 0xFFFF)  # a model that is a number
CHUNK = hostile.png_chunk
BESIDE: dict[str, bytes | None] = {
    "png text of another checksum": with_chunks(CHUNK(b"tEXt", b"a\0b", checksum=False)),
    "png long text": with_chunks(CHUNK(b"zTXt", b"a\0\0" + hostile.bomb(2 << 20))),
    "png long profile": with_chunks(CHUNK(b"iCCP", b"a\0\0" + hostile.bomb(2 << 20))),
    "png much text": with_chunks(*[CHUNK(b"zTXt", b"a\0\0" + hostile.bomb(1 << 19))] * 140),
    "png unknown compression": with_chunks(CHUNK(b"zTXt", b"a\0\7x"), CHUNK(b"iCCP", b"a\0\7x")),
    "png short gamma": with_chunks(CHUNK(b"gAMA", b"\0"), CHUNK(b"cHRM", b"\0"), CHUNK(b"pHYs", b"\0")),
    "png short colours": with_chunks(CHUNK(b"sRGB"), CHUNK(b"tRNS", b"\0")),
    "png EXIF of nothing": with_chunks(CHUNK(b"eXIf", b"II*"), CHUNK(b"tEXt", b"Raw profile type exif\0\n\n\nxx")),
    "png odd EXIF": with_chunks(CHUNK(b"eXIf", exif(ODD_TAG, (0x0112, 3, 1, 1))[6:])),
    "png animation of nothing": with_chunks(CHUNK(b"acTL", b"\0"), CHUNK(b"fcTL", b"\0")),
    "png without an end": saved("PNG")[:-12],
    "png with more behind": saved("PNG") + b"more" * 99,
    "jpeg odd EXIF": with_segments(hostile.jpeg_segment(0xE1, exif(ODD_TAG))),
    "jpeg EXIF of nothing": with_segments(hostile.jpeg_segment(0xE1, b"Exif\0\0MM")),
    "jpeg short JFIF": with_segments(hostile.jpeg_segment(0xE0, b"JFIF"), hostile.jpeg_segment(0xEE, b"Adobe")),
    "jpeg short Photoshop": with_segments(hostile.jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x00\x00")),
    "jpeg index of images": with_segments(hostile.jpeg_segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff")),
    "jpeg profile": with_segments(hostile.jpeg_segment(0xE2, b"ICC_PROFILE\0")),
    "jpeg with more behind": saved("JPEG") + hostile.jpeg(64, 64, 99),
    "webp cut in its metadata": saved("WEBP", exif=exif(ODD_TAG))[:-9],
    "webp odd EXIF": saved("WEBP", exif=exif(ODD_TAG)),
    "tiff odd tags": None,
}


def odd_tiff() -> bytes:
    tags = [(tag, kind, 3, 0xFFFFFFF0) for tag, kind in ((269, 2), (282, 5), (700, 1), (0x8769, 4), (0x8825, 7))]
    pixels = IMAGE.tobytes()
    own = [(256, 4, 1, 30), (257, 4, 1, 20), (258, 3, 3, struct.pack("<HHH", 8, 8, 8)), (259, 3, 1, 1)]
    own += [(262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 3), (279, 4, 1, len(pixels))]
    return hostile.tiff([*own, *tags, (34675, 7, 9, 1 << 31), (0x0112, 2, 1, 0x78)], pixels, following=8)


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_pixels_stops_nothing(name: str) -> None:
    data = BESIDE[name] or odd_tiff()
    expected = saved("JPEG" if name.startswith("jpeg") else "WEBP" if name.startswith("webp") else "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = decode(data)
    assert ours.tobytes() == Image.open(io.BytesIO(expected)).convert("RGB").tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_read_among_odd_tags(kind: str, order: str) -> None:
    """Of a tag that Pillow cannot write again, `exif_transpose` makes an error."""
    data = exif(ODD_TAG, (0x0112, 3, 1, 6), (0x0132, 5, 1, 0xFFFFFFF0), order=order)
    if kind == "TIFF":
        file = bytearray(saved("TIFF"))
        at = struct.unpack("<L", file[4:8])[0]
        count = struct.unpack("<H", file[at : at + 2])[0]
        records = [bytes(file[at + 2 + 12 * i : at + 14 + 12 * i]) for i in range(count)]
        records += [struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0)]
        file[4:8] = struct.pack("<L", len(file))
        file += struct.pack("<H", len(records)) + b"".join(sorted(records)) + bytes(4)
        encoded = bytes(file)
    else:
        encoded = saved(kind, exif=data, **({"lossless": True} if kind == "WEBP" else {}))
    upright = Image.open(io.BytesIO(saved(kind, **({"lossless": True} if kind == "WEBP" else {})))).convert("RGB")
    assert decode(encoded).tobytes() == upright.transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize(
    ("tag", "turned"),
    [
        ((0x0112, 3, 1, 3), True),
        ((0x0112, 4, 1, 3), True),
        ((0x0112, 3, 2, 3), True),  # of two values the first
        ((0x0112, 5, 1, struct.pack("<LL", 6, 2)), True),
        ((0x0112, 11, 1, struct.unpack("<L", struct.pack("<f", 3.0))[0]), True),
        ((0x0112, 3, 1, 0), False),
        ((0x0112, 3, 1, 9), False),
        ((0x0112, 1, 1, 3), False),
        ((0x0112, 2, 2, 0x33), False),
        ((0x0112, 5, 1, struct.pack("<LL", 3, 0)), False),
        ((0x0112, 99, 1, 3), False),
    ],
    ids=str,
)
def test_orientations_of_odd_types_are_those_of_pillow(tag: hostile.Tag, turned: bool) -> None:
    data = saved("PNG", exif=exif(tag))
    expected = IMAGE.transpose(Image.Transpose.ROTATE_180) if turned else IMAGE
    assert decode(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("compressed", [False, True])
def test_the_orientation_in_xmp(compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="3"/>', zip=compressed)
    assert decode(saved("PNG", pnginfo=info)).tobytes() == IMAGE.transpose(Image.Transpose.ROTATE_180).tobytes()
    raw = zlib.compress(hexadecimal(exif((274, 3, 1, 3))))
    legacy = with_chunks(CHUNK(b"zTXt", b"Raw profile type exif\0\0" + raw))
    assert decode(legacy).tobytes() == IMAGE.transpose(Image.Transpose.ROTATE_180).tobytes()


def hexadecimal(data: bytes) -> bytes:
    return b"\nexif\n%8d\n%s\n" % (len(data), data.hex().encode())


def test_a_refused_image_has_its_index() -> None:
    with pytest.raises(InputError, match="input 1: .*has 4000 scans") as caught:
        preprocess([IMAGE, hostile.jpeg(64, 64, 4000)], TYPICAL)
    assert caught.value.index == 1
    with pytest.raises(InputError, match="expected at most 599"):
        decode(saved("PNG"), ImageOptions(max_pixels=599))
