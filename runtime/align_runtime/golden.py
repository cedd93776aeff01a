"""Golden vectors of a bundle: inputs and the embeddings that the PyTorch reference gives for them, for the self-test.

``golden/`` holds ``texts.json`` (a list), ``input_ids.npy``, ``attention_mask.npy`` and ``text_embeds.npy``;
``images/``, ``images.json`` (the names of its files, in order), ``pixels.npy`` and ``image_embeds.npy``. Row i of an
array belongs to entry i of its list.
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
    """Inputs and the reference's embeddings of them.

    Attributes:
        texts: n strings.
        input_ids, attention_mask: int64 (n, sequence).
        text_embeds: float32 (n, dim), rows of unit length.
        images: m image files.
        pixels: uint8 RGB (m, height, width, 3), the output of preprocessing.
        image_embeds: float32 (m, dim), rows of unit length.
    """

    texts: tuple[str, ...]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    text_embeds: NDArray[np.float32]
    images: tuple[Path, ...]
    pixels: NDArray[np.uint8]
    image_embeds: NDArray[np.float32]


def write(folder: Path, golden: Golden) -> None:
    """Writes `golden` into the bundle folder `folder` and copies its images there."""
    target = folder / FOLDER
    (target / "images").mkdir(parents=True)
    for image in golden.images:
        (target / "images" / image.name).write_bytes(image.read_bytes())
    _write_list(target / "texts.json", golden.texts)
    _write_list(target / "images.json", [image.name for image in golden.images])
    for name, (dtype, _) in ARRAYS.items():
        np.save(target / f"{name}.npy", np.ascontiguousarray(getattr(golden, name), dtype=dtype), allow_pickle=False)


def read(bundle: Bundle) -> Golden:
    """The golden vectors of `bundle`. The hash of every file is checked.

    Raises:
        BundleError: a file is missing, damaged or of another length than its list.
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
                    f"{bundle.folder}: expected {len(count)} rows in golden/{field}.npy, got {len(arrays[field])}"
                )
    return Golden(texts=tuple(texts), images=images, **arrays)


def read_array(path: Path, dtype: np.dtype[Any], ndim: int) -> NDArray[Any]:
    """The ``.npy`` array in `path`, C-contiguous, with `dtype` and `ndim` dimensions.

    The header is compared with the size of the file before memory is allocated, and nothing is ever unpickled.

    Raises:
        BundleError: the file cannot be read or holds another array.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise BundleError(f"{path}: expected .npy version (1, 0), got {version}")
            shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            size = path.stat().st_size - file.tell()
            if found != dtype or fortran or len(shape) != ndim or math.prod(shape) * dtype.itemsize != size:
                raise BundleError(
                    f"{path}: expected a C-contiguous {dtype} array of {ndim} dimensions, got {found} of shape {shape} "
                    f"in {size} bytes"
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
