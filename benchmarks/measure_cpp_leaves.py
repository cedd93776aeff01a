"""Measures the C++ runtime's tokenizer, resize and decoders against `tokenizers` and Pillow on the CPU.

    PYTHONPATH=tests python -m benchmarks.measure_cpp_leaves [--rounds 60]

Needs `make cpp`. Both sides are called from Python, and rounds of both alternate. It prints medians and ratios.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from align_bench.interleaved import speedup, time_interleaved
from align_exporter.builtin_samples import captions
from align_runtime.images import decode
from align_runtime.tokenizer import Tokenizer
from support.leaf_shim import Shim, ShimTokenizer
from vectors.make import description

SIZE = (346, 346)
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

Pair = tuple[Callable[[], object], Callable[[], object]]


def tokenizer_pairs(shim: Shim) -> dict[str, Pair]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(description().to_json()), encoding="utf-8")
        python, native = Tokenizer.from_file(path, 64, 0), ShimTokenizer(shim, path.read_bytes(), 64)
    backend = python._backend  # the package without the checks of the runtime
    one, many = captions()[1:2], (captions() * 8)[:128]
    return {
        "one caption": (lambda: backend.encode(one[0]).ids, native.timed(one)),
        "128 captions": (lambda: [each.ids for each in backend.encode_batch_fast(many)], native.timed(many)),
    }


def image_pairs(shim: Shim) -> dict[str, Pair]:
    array = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    image, out = Image.fromarray(array), np.empty((*SIZE, 3), np.uint8)

    def resizing(code: int) -> Pair:
        return lambda: image.resize(SIZE, Image.Resampling(code)), lambda: shim.resample(array, SIZE, code, False, out)

    def decoding(kind: str) -> Pair:
        buffer = io.BytesIO()
        Image.fromarray(array // 4 + 96).resize((160, 120)).resize((640, 480)).save(buffer, kind)
        data = buffer.getvalue()
        return lambda: np.asarray(decode(data)), lambda: shim.decode(data, None)

    pairs = {f"640×480 to 346², {name}": resizing(code) for code, name in FILTERS.items()}
    return pairs | {f"640×480 {kind}": decoding(kind) for kind in ("JPEG", "PNG")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="of each candidate (default: 60)")
    rounds = parser.parse_args().rounds
    shim = Shim()
    for name, (python, native) in (tokenizer_pairs(shim) | image_pairs(shim)).items():
        seconds = time_interleaved({"python": python, "c++": native}, rounds)
        before, after = (1e3 * median(seconds[each]) for each in ("python", "c++"))
        ratio = speedup(seconds["python"], seconds["c++"])
        print(f"{name:<28} Python {before:8.3f} ms   C++ {after:8.3f} ms   × {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
