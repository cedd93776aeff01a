"""Makes the vectors that the Python and the C++ runtime are both held to: texts and ids, files and pixels, refusals,
and embeddings.

    PYTHONPATH=runtime:tests python -m vectors.make build/align-tiny

The expected values are what the Python runtime gives; tests/cpp/test_vectors.py compares them with it, and the tests in
runtime/cpp/tests with the C++ runtime. A crc32 is that of the RGB bytes. The bundle is that of reference/align-tiny.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import align_runtime
from align_runtime.errors import AlignError, BundleError, InputError
from align_runtime.image_options import ImageOptions
from align_runtime.images import decode, fit
from align_runtime.json_files import read_json
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.tokenizer import Tokenizer
from align_runtime.tokenizer_file import AddedToken, TokenizerDescription
from support.hostile_images import png
from support.made_images import encoded, image, noise, of_mode
from support.text_samples import FIXED, fuzzed_texts
from support.tokenizers import SPECIAL, VOCABULARY

FOLDER = Path(__file__).parent
IMAGES = FOLDER / "images"
MAX_LENGTH = 24
BACKGROUND = "#0a80fe"
CAPTIONS = ("", "a photo of a green heart", "Handwritten SEVEN", "a white ring", "crème brûlée 你好 🙂", "star " * 100)
PHOTOS = ("RGB.png", "L.png", "RGBA.png", "I16.png", "turned_6.jpg", "jpeg_420.jpg", "cmyk.jpg")
DECIMALS = 8  # of embeddings, which are compared within 1e-6
ADDED = (
    ("<img>", {"lstrip": True}),
    ("<end>", {"rstrip": True, "special": True}),
    ("Photo Booth", {"normalized": True, "single_word": True}),
    ("é", {"single_word": True}),
)


def _token(content: str, place: int) -> dict[str, Any]:
    """An added token that is normalized, with the id at `place` behind the vocabulary."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {"id": len(VOCABULARY) + place, "content": content, **flags}


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"normalizer": {"lowercase": False}},
    {"normalizer": {"strip_accents": True}},
    {"normalizer": {"strip_accents": False}},
    {"normalizer": {"handle_chinese_chars": False}},
    {"normalizer": {"clean_text": False}},
    {"normalizer": {"clean_text": 1}},
    {"normalizer": {"type": "NFC"}},
    {"normalizer": {"extra": True}},
    {"version": "1.1"},
    {"truncation": {"max_length": 5}},
    {"padding": {}},
    {"decoder": {"cleanup": False}},
    {"model": {"max_input_chars_per_word": 99}},
    {"model": {"max_input_chars_per_word": 100.0}},
    {"model": {"unk_token": "?!"}},
    {"model": {"vocab": {"cat": 0}}},
    {"model": {"vocab": {"cat": 1.0}}},
    {"model": {"vocab": {"cat": -1}}},
    {"model": {"vocab": {"cat": True}}},
    {"post_processor": {"single": []}},
    {"pre_tokenizer": {"type": "Whitespace"}},
    {"added_tokens": []},
    {"added_tokens": [_token("New", 0), _token("nEw", 1)]},
    {"added_tokens": [_token("New", 0), _token("older", 1)]},
    {"added_tokens": [_token("New", 1)]},
    {"added_tokens": [_token("\u0301", 0)]},
    {"added_tokens": [_token("x" * 256, 0)]},
    {"added_tokens": [_token("x" * 257, 0)]},
    {"unknown": 1},
)


def description() -> TokenizerDescription:
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    special = [AddedToken(ids[token], token, **plain | {"special": True}) for token in SPECIAL.values()]
    more = [AddedToken(len(ids) + i, token, **plain | flags) for i, (token, flags) in enumerate(ADDED)]
    return TokenizerDescription(ids, "[UNK]", "[CLS]", "[SEP]", True, None, True, (*special, *more))


def texts() -> list[str]:
    joined = [f"a {one}b {one}  c" for one in (*FIXED, *(token for token, _ in ADDED))]
    words = ["x" * length for length in (99, 100, 101)] + [
        "a photo of a cat " * 9,
        "photo boothS Photo  Booth photo booth",
    ]
    return ["", " ", *FIXED, *joined, *words, *fuzzed_texts(400, seed=21)]


def patched(document: Any, patch: Any) -> Any:
    """RFC 7386's merge of `patch` into `document`, without its deletions."""
    if not isinstance(patch, dict) or not isinstance(document, dict):
        return patch
    return document | {key: patched(document.get(key), value) for key, value in patch.items()}


def variants() -> list[dict[str, Any]]:
    document = read_json(FOLDER / "tokenizer.json", BundleError)
    found = []
    for patch in VARIANTS:
        try:
            TokenizerDescription.from_json(patched(document, patch)).build()
            found.append({"patch": patch, "accepted": True})
        except AlignError:
            found.append({"patch": patch, "accepted": False})
    return found


def files() -> dict[str, bytes]:
    """Encoded images of all kinds that C++ reads, whole and damaged."""
    exif = Image.Exif()
    smooth = Image.fromarray(np.kron(noise(9, 12, 3) // 2, np.ones((8, 8, 1), np.uint8))).crop((0, 0, 91, 67))
    made = {
        f"{mode.replace(';', '')}.png": encoded(of_mode(mode), "PNG")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    }
    made["P_transparent.png"] = encoded(of_mode("P"), "PNG", transparency=bytes(range(256)))
    made["RGB_key.png"] = encoded(image(20, 30, 5), "PNG", transparency=image(20, 30, 5).getpixel((0, 0)))
    for orientation in range(1, 9):
        exif[0x112] = orientation
        made[f"turned_{orientation}.png"] = encoded(image(7, 5, 3), "PNG", exif=exif)
        made[f"turned_{orientation}.jpg"] = encoded(smooth, "JPEG", exif=exif, quality=60)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        name = f"jpeg_{subsampling.replace(':', '')}.jpg"
        made[name] = encoded(smooth, "JPEG", subsampling=subsampling)
        made["progressive_" + name] = encoded(smooth, "JPEG", subsampling=subsampling, progressive=True)
    made["grey.jpg"] = encoded(smooth.convert("L"), "JPEG")
    made["cmyk.jpg"] = encoded(of_mode("CMYK"), "JPEG")
    made["cut.jpg"] = made["jpeg_420.jpg"][:-200]
    made["cut.png"] = made["RGB.png"][:-200]
    made["bad_filter.png"] = png(3, 2, pixels=zlib.compress((b"\5" + bytes(9)) * 2))
    made["short.png"] = png(3, 3, pixels=zlib.compress(b"\0" + b"\x09" * 9))
    made["wide.png"] = png(100_000, 1, pixels=b"")
    made["huge.png"] = png(30_000, 30_000, pixels=b"")
    made["text.png"] = b"not an image"
    return made


def decoded() -> list[dict[str, Any]]:
    found = []
    for path in sorted(IMAGES.iterdir()):
        for alpha in ("drop", BACKGROUND):
            row: dict[str, Any] = {"file": path.name, "alpha": alpha}
            try:
                pixels = np.asarray(decode(path.read_bytes(), ImageOptions(alpha=alpha)))
                row |= {"height": pixels.shape[0], "width": pixels.shape[1], "crc32": zlib.crc32(pixels.tobytes())}
            except InputError:
                row["error"] = True
            found.append(row)
    return found


def configurations() -> list[dict[str, Any]]:
    """Preprocessing objects of a manifest: all filters, shrinking and growing, crops inside and beyond."""
    rest = {
        "rescale_factor": None,
        "rescale_offset": False,
        "image_mean": None,
        "image_std": None,
        "include_top": False,
    }
    sizes: list[tuple[dict[str, int] | None, dict[str, int] | None]] = [
        ({"height": 23, "width": 31}, {"height": 17, "width": 19}),
        ({"height": 90, "width": 12}, {"height": 64, "width": 33}),
        ({"shortest_edge": 21}, {"height": 21, "width": 21}),
        ({"shortest_edge": 40, "longest_edge": 50}, {"height": 44, "width": 47}),
        ({"max_height": 30, "max_width": 44}, {"height": 30, "width": 44}),
    ]
    resized = [{"size": size, "resample": code, "crop_size": crop} for size, crop in sizes for code in range(6)]
    cropped = [{"size": None, "resample": None, "crop_size": {"height": 50, "width": 31}}]
    return [one | rest for one in (*resized, *cropped)]


def preprocessed() -> list[dict[str, Any]]:
    found = []
    for name in ("RGB.png", "L.png", "jpeg_420.jpg", "turned_6.jpg"):
        source = decode((IMAGES / name).read_bytes())
        for values in configurations():
            pixels = fit(source, ImagePreprocessing.from_json(values, "preprocessing"))
            found.append({"file": name, "preprocessing": values, "crc32": zlib.crc32(pixels.tobytes())})
    return found


def expected() -> dict[str, Any]:
    """The JSON files beside this one, by name, made of the tokenizer and the images beside it."""
    tokenizer = Tokenizer.from_file(FOLDER / "tokenizer.json", MAX_LENGTH, 0)
    rows = [{"text": text, "ids": ids.tolist()} for text, ids in zip(texts(), tokenizer.encode(texts()), strict=True)]
    return {
        "texts.json": {"max_length": MAX_LENGTH, "texts": rows},
        "tokenizer_variants.json": variants(),
        "images.json": decoded(),
        "pixels.json": preprocessed(),
    }


def rounded(row: NDArray[np.float32]) -> list[float]:
    return [round(value, DECIMALS) for value in row.tolist()]


def embeddings(bundle: Path) -> dict[str, list[dict[str, Any]]]:
    """FP32 rows of `CAPTIONS` and `PHOTOS` by the bundle of reference/align-tiny."""
    with align_runtime.load(bundle, threads=1, streams=1) as model:
        texts = model.embed_texts(CAPTIONS)
        images = model.embed_images([IMAGES / name for name in PHOTOS])
    return {
        "texts": [{"text": text, "row": rounded(row)} for text, row in zip(CAPTIONS, texts, strict=True)],
        "images": [{"file": name, "row": rounded(row)} for name, row in zip(PHOTOS, images, strict=True)],
    }


def main(bundle: Path) -> None:
    (FOLDER / "tokenizer.json").write_text(json.dumps(description().to_json(), ensure_ascii=False), encoding="utf-8")
    IMAGES.mkdir(exist_ok=True)
    for name, data in files().items():
        (IMAGES / name).write_bytes(data)
    for name, values in (expected() | {"embeddings.json": embeddings(bundle)}).items():
        rows = json.dumps(values, ensure_ascii=True)
        (FOLDER / name).write_text(rows.replace("}, {", "},\n{") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
