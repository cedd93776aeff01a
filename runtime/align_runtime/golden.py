"""Golden inputs and outputs in the bundle: what the reference answered, so that a bundle can test itself.

``golden/`` holds `texts.json` (a list), `input_ids.npy`, `attention_mask.npy`, `text_embeds.npy`; `images/` and
`images.json` (their names in order), `pixels.npy`, `image_embeds.npy`. All rows are in the order of the two lists.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError

FOLDER = "golden"
ARRAYS = {
    "input_ids": (np.int64, 2),
    "attention_mask": (np.int64, 2),
    "text_embeds": (np.float32, 2),
    "pixels": (np.uint8, 4),
    "image_embeds": (np.float32, 2),
}


@dataclass(frozen=True)
class Golden:
    """Inputs and the reference's outputs.

    Attributes:
        texts: n strings; input_ids, attention_mask: int64 (n, sequence); text_embeds: float32 (n, dim), unit rows.
        images: m image files; pixels: uint8 (m, height, width, 3); image_embeds: float32 (m, dim), unit rows.
    """

    texts: tuple[str, ...]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    text_embeds: NDArray[np.float32]
    images: tuple[Path, ...]
    pixels: NDArray[np.uint8]
    image_embeds: NDArray[np.float32]


def write(folder: Path, golden: Golden) -> None:
    """Writes `golden` under the bundle folder `folder`; the images are copied."""
    target = folder / FOLDER
    (target / "images").mkdir(parents=True)
    for image in golden.images:
        (target / "images" / image.name).write_bytes(image.read_bytes())
    _write_list(target / "texts.json", golden.texts)
    _write_list(target / "images.json", [image.name for image in golden.images])
    for name, (dtype, _) in ARRAYS.items():
        np.save(target / f"{name}.npy", np.ascontiguousarray(getattr(golden, name), dtype=dtype), allow_pickle=False)


def read(bundle: Bundle) -> Golden:
    """The golden vectors of `bundle`, every file's hash checked.

    Raises:
        BundleError: a file is missing, damaged, or does not fit the others.
    """
    arrays: dict[str, Any] = {
        name: read_array(bundle.check_hash(f"{FOLDER}/{name}.npy"), np.dtype(dtype), ndim)
        for name, (dtype, ndim) in ARRAYS.items()
    }
    texts = _read_list(bundle.check_hash(f"{FOLDER}/texts.json"))
    names = _read_list(bundle.check_hash(f"{FOLDER}/images.json"))
    images = tuple(bundle.check_hash(f"{FOLDER}/images/{name}") for name in names)
    for count, fields in ((texts, ("input_ids", "attention_mask", "text_embeds")), (names, ("pixels", "image_embeds"))):
        for field in fields:
            if len(arrays[field]) != len(count):
                raise BundleError(
                    f"{bundle.folder}: golden/{field}.npy has {len(arrays[field])} rows, not {len(count)}"
                )
    return Golden(texts=tuple(texts), images=images, **arrays)


def read_array(path: Path, dtype: np.dtype[Any], ndim: int) -> NDArray[Any]:
    """The ``.npy`` array in `path`, whose header must agree with `dtype`, `ndim` and the size of the file.

    The header is checked before anything of the size that it claims is allocated, and nothing is ever unpickled.

    Raises:
        BundleError: no such array in the file.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise BundleError(f"{path}: .npy version {version}, (1, 0) was expected")
            shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            size = path.stat().st_size - file.tell()
            if found != dtype or fortran or len(shape) != ndim or math.prod(shape) * dtype.itemsize != size:
                raise BundleError(
                    f"{path}: a {found} array of shape {shape} in {size} bytes; {dtype} with {ndim} axes was expected"
                )
            return np.frombuffer(file.read(size), dtype=dtype).reshape(shape)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not a readable .npy file: {error}") from None


def _write_list(path: Path, values: tuple[str, ...] | list[str]) -> None:
    path.write_text(json.dumps(list(values), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _read_list(path: Path) -> list[str]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BundleError(f"{path} is not a list of strings")
    return values
