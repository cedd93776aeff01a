"""Measures the C++ runtime beside the Python runtime on the CPU; writes ``benchmarks/results/cpp.json``.

    PYTHONPATH=tests python -m benchmarks.measure_cpp [--rounds 20] [--bundle build/bench/bundle]

Needs `make cpp` and a bundle of the published sizes. Whole calls of both runtimes on the same release of ONNX Runtime
with all cores; and the tokenizer, the resize and the decoders against `tokenizers` and Pillow. C++ is called from
Python, too, which its times include; rounds of both alternate.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

import align_runtime
from align_bench.interleaved import speedup, time_interleaved
from align_exporter.builtin_samples import captions
from align_runtime.images import decode
from align_runtime.tokenizer import Tokenizer
from benchmarks.full_size_bundle import FOLDER
from benchmarks.result_files import conditions, write_result
from benchmarks.sections.cpp import NATIVE, PYTHON
from benchmarks.timing import Candidate, time_case
from support.leaf_shim import Shim, ShimTokenizer
from support.native import NativeModel, load_library
from vectors.make import description

PART_ROUNDS = 60
SIZE = (346, 346)
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

Pair = tuple[Callable[[], object], Callable[[], object]]


def _file(array: np.ndarray[Any, np.dtype[np.uint8]], kind: str = "JPEG") -> bytes:
    """`array`, which is noise, as a file of about the size of a photograph's."""
    buffer = io.BytesIO()
    Image.fromarray(array // 4 + 96).resize((160, 120)).resize((640, 480)).save(buffer, kind)
    return buffer.getvalue()


def calls(bundle: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Whole calls: texts, images in memory and JPEG files to embeddings."""
    arrays = list(np.random.default_rng(1).integers(0, 256, (8, 480, 640, 3), dtype=np.uint8))
    files, texts = [_file(array) for array in arrays], (captions() * 8)[:128]
    with align_runtime.load(bundle) as model, NativeModel(load_library(), bundle) as native:
        pairs: dict[str, tuple[Candidate, Candidate]] = {
            "1 caption": (lambda: model.embed_texts(texts[1:2]), lambda: native.embed_texts(texts[1:2])),
            "128 captions": (lambda: model.embed_texts(texts), lambda: native.embed_texts(texts)),
            "1 image": (lambda: model.embed_images(arrays[:1]), lambda: native.embed_images(arrays[:1])),
            "8 images": (lambda: model.embed_images(arrays), lambda: native.embed_images(arrays)),
            "1 JPEG file": (lambda: model.embed_images(files[:1]), lambda: native.embed_encoded(files[:1])),
            "8 JPEG files": (lambda: model.embed_images(files), lambda: native.embed_encoded(files)),
        }
        for name, (python, c) in pairs.items():
            yield time_case(name, {PYTHON: python, NATIVE: c}, rounds)


def tokenizer_pairs(shim: Shim) -> dict[str, Pair]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(description().to_json()), encoding="utf-8")
        python, native = Tokenizer.from_file(path, 64, 0), ShimTokenizer(shim, path.read_bytes(), 64)
    backend = python._backend  # the package without the checks of the runtime
    one, many = captions()[1:2], (captions() * 8)[:128]
    return {
        "tokenize 1 caption": (lambda: backend.encode(one[0]).ids, native.timed(one)),
        "tokenize 128 captions": (lambda: [each.ids for each in backend.encode_batch_fast(many)], native.timed(many)),
    }


def image_pairs(shim: Shim) -> dict[str, Pair]:
    array = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    image, out = Image.fromarray(array), np.empty((*SIZE, 3), np.uint8)

    def resizing(code: int) -> Pair:
        return lambda: image.resize(SIZE, Image.Resampling(code)), lambda: shim.resample(array, SIZE, code, False, out)

    def decoding(kind: str) -> Pair:
        data = _file(array, kind)
        return lambda: np.asarray(decode(data)), lambda: shim.decode(data, None)

    pairs = {f"resize 640×480 to 346², {name}": resizing(code) for code, name in FILTERS.items()}
    return pairs | {f"decode 640×480, {kind}": decoding(kind) for kind in ("JPEG", "PNG")}


def parts(shim: Shim) -> Iterator[Mapping[str, Any]]:
    """Parts of a call, without ONNX Runtime."""
    for name, (python, native) in (tokenizer_pairs(shim) | image_pairs(shim)).items():
        seconds = time_interleaved({PYTHON: python, NATIVE: native}, PART_ROUNDS)
        before, after = (1e3 * median(seconds[each]) for each in (PYTHON, NATIVE))
        print(f"{name:<36} {before:8.3f} ms  {after:8.3f} ms  × {speedup(*seconds.values()):.2f}", flush=True)
        yield {"name": name, "seconds": {each: [round(value, 7) for value in seconds[each]] for each in seconds}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of whole calls, an even number (default: 20)")
    parser.add_argument("--bundle", type=Path, default=FOLDER / "bundle", help="default: build/bench/bundle")
    options = parser.parse_args()
    load = os.getloadavg()
    measured = {"calls": list(calls(options.bundle, options.rounds)), "parts": list(parts(Shim()))}
    write_result("cpp", conditions(load) | measured)


if __name__ == "__main__":
    main()
