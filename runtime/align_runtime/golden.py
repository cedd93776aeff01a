"""Golden vectors of a bundle: inputs and the embeddings that the PyTorch reference gives for them, for the self-test.

``golden/`` holds ``texts.json`` (a list), ``input_ids.npy``, ``attention_mask.npy`` and ``text_embeds.npy``;
``images/``, ``images.json`` (the names of its files, in order), ``pixels.npy`` and ``image_embeds.npy``. Row i of an
array belongs to entry i of its list.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError
from align_runtime.json_files import read_json
from align_runtime.outputs import checked_embeddings
from align_runtime.regular_files import read_regular

FOLDER = "golden"
MAX_ARRAY_BYTES = 256 << 20  # the pixels of eight images of 600×600 take 9 MB
# What `np.save` writes, version 1.0: magic, length of the header, and a dictionary padded with spaces.
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype>[<>|=]?[a-zA-Z][0-9]{0,4})', "
    rb"'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[0-9, ]{0,80})\), \} {0,200}\n",
    re.DOTALL,
)
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
    """The golden vectors of `bundle`. The hash of every file is checked, and that they are inputs of this model.

    Raises:
        BundleError: a file is missing, damaged, of another length than its list, or holds what the model cannot take.
    """
    arrays: dict[str, Any] = {
        name: read_array(bundle.check_hash(f"{FOLDER}/{name}.npy"), np.dtype(dtype), ndim)
        for name, (dtype, ndim) in ARRAYS.items()
    }
    texts = _read_list(bundle.check_hash(f"{FOLDER}/texts.json"))
    names = _read_list(bundle.check_hash(f"{FOLDER}/images.json"))
    images = tuple(bundle.check_hash(f"{FOLDER}/images/{name}") for name in names)
    golden = Golden(texts=tuple(texts), images=images, **arrays)
    _check_shapes(bundle, golden)
    _check_values(bundle, golden)
    return golden


def _check_shapes(bundle: Bundle, golden: Golden) -> None:
    facts, (height, width) = bundle.manifest.model, bundle.manifest.preprocessing.output_size
    texts, images = len(golden.texts), len(golden.images)
    sequence = min(golden.input_ids.shape[1], facts.max_length)
    for tower, count in (("text", texts), ("vision", images)):
        if count == 0 and any(graph.tower == tower for graph in bundle.manifest.graphs):
            raise BundleError(
                f"{bundle.folder}: golden/ has no inputs of the {tower} graphs; export the checkpoint again"
            )
    shapes = {
        "input_ids": (texts, sequence),
        "attention_mask": (texts, sequence),
        "text_embeds": (texts, facts.embedding_dim),
        "pixels": (images, height, width, 3),
        "image_embeds": (images, facts.embedding_dim),
    }
    for name, shape in shapes.items():
        if getattr(golden, name).shape != shape:
            raise BundleError(
                f"{bundle.folder}: expected shape {shape} in golden/{name}.npy, got {getattr(golden, name).shape}"
            )


def _check_values(bundle: Bundle, golden: Golden) -> None:
    rows = bundle.manifest.model.vocab_size
    if ((golden.input_ids < 0) | (golden.input_ids >= rows)).any():
        raise BundleError(f"{bundle.folder}: golden/input_ids.npy has ids that are not from 0 to {rows - 1}")
    lengths = golden.attention_mask.sum(axis=1)
    if not np.array_equal(golden.attention_mask, np.arange(golden.attention_mask.shape[1]) < lengths[:, None]):
        raise BundleError(f"{bundle.folder}: golden/attention_mask.npy is not ones followed by zeros in each row")
    for name in ("text_embeds", "image_embeds"):
        embeds = getattr(golden, name)
        checked_embeddings(embeds, len(embeds), embeds.shape[1], f"{bundle.folder}/golden/{name}.npy")


def read_array(path: Path, dtype: np.dtype[Any], ndim: int) -> NDArray[Any]:
    """The ``.npy`` array in `path`, C-contiguous, with `dtype` and `ndim` dimensions, as `write` wrote it.

    The header is matched and not evaluated, and compared with the size of the file. Nothing is unpickled.

    Raises:
        BundleError: the file cannot be read, is too large, or holds another array.
    """
    data = read_regular(path, MAX_ARRAY_BYTES, BundleError)
    header = HEADER.match(data)
    if header is None:
        raise BundleError(f"{path} is not a .npy file as align-export writes it; export the checkpoint again")
    found, fortran, sizes = header["dtype"].decode(), header["fortran"] == b"True", header["shape"].decode()
    shape = tuple(int(size) for size in sizes.replace(" ", "").split(",") if size)
    size = len(data) - header.end()
    expected = int.from_bytes(header["length"], "little") == header.end() - header.end("length")
    if not expected or found != dtype.str or fortran or len(shape) != ndim or math.prod(shape) * dtype.itemsize != size:
        order = "Fortran " if fortran else ""
        raise BundleError(
            f"{path}: expected a C-contiguous {dtype.str} array of {ndim} dimensions, got {order}{found} of shape "
            f"{shape} in {size} bytes"
        )
    return np.frombuffer(data, dtype=dtype, offset=header.end()).reshape(shape)


def _write_list(path: Path, values: tuple[str, ...] | list[str]) -> None:
    path.write_text(json.dumps(list(values), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _read_list(path: Path) -> list[str]:
    values = read_json(path, BundleError)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BundleError(f"{path} is not a list of strings")
    return values
