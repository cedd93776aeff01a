"""Measures what `align-embed --dtype` loses in recall; writes ``benchmarks/results/dtypes.json``.

    python -m benchmarks.measure_dtypes build/align-tiny [--images 3000]

Recall at k: the share of the k nearest rows of a query, by float32 and over all rows, that are among its k nearest by
the stored rows. The query stays float32, except for "binary, bits of both", where signs are compared with signs. The
rows are images of shapes and digits embedded by the bundle, searched by other such images and by captions, and random
directions of 640 components, which have no structure and are the hardest case. PCA, fitted on the very rows that are
searched, is measured beside them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import align_runtime
from align_serving.embed.encodings import ENCODINGS
from benchmarks.result_files import conditions, write_result
from support.calibration_images import draw_captions, draw_images

Rows = NDArray[np.float32]
DEPTHS = (1, 10, 100)
QUERIES = 500
RANDOM = (20_000, 640)
PCA_SHARES = (2, 4, 8)


def nearest(queries: Rows, rows: Rows, depth: int) -> NDArray[np.int64]:
    """Indices of the `depth` rows with the largest products, (queries, depth), in no order."""
    scores = queries @ rows.T
    return np.argpartition(-scores, depth - 1, axis=1)[:, :depth]


def recall(queries: Rows, rows: Rows, exact: Rows, exact_queries: Rows, depth: int) -> float:
    """The share of the exact nearest that `queries` find in `rows`."""
    found, wanted = nearest(queries, rows, depth), nearest(exact_queries, exact, depth)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found, wanted, strict=True)]
    return float(np.mean(shared) / depth)


def stored(queries: Rows, rows: Rows) -> Iterator[tuple[str, int, Rows, Rows]]:
    """Name, bytes of a row, queries and rows, for every way to store `rows`."""
    dim = rows.shape[1]
    for name, encoding in ENCODINGS.items():
        values = encoding.encode(rows)
        yield name, values[0].nbytes, queries, encoding.decode(values, dim)
    signs = ENCODINGS["binary"]
    yield "binary, bits of both", -(-dim // 8), signs.decode(signs.encode(queries), dim), signs.decode(values, dim)
    mean = rows.mean(axis=0)
    directions = np.linalg.svd(rows[:20_000] - mean, full_matrices=False)[2]
    for share in PCA_SHARES:
        kept = directions[: dim // share]
        yield f"PCA to 1/{share}, float32", 4 * len(kept), queries, mean + (rows - mean) @ kept.T @ kept


def measure(name: str, queries: Rows, rows: Rows) -> dict[str, Any]:
    """Recall at each depth of every way to store `rows`."""
    ways = {}
    for way, size, given, kept in stored(queries, rows):
        ways[way] = {
            "bytes": size,
            "recall": {str(depth): recall(given, kept, rows, queries, depth) for depth in DEPTHS},
        }
        print(f"{name:<22} {way:<22} {size:>5} bytes  {ways[way]['recall']}", flush=True)
    return {"name": name, "rows": len(rows), "dim": rows.shape[1], "queries": len(queries), "ways": ways}


def embedded(bundle: Path, count: int, cases: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as temporary, align_runtime.load(bundle) as model:
        folder = draw_images(Path(temporary) / "images", count + QUERIES, seed=101)
        images = model.embed_images(sorted(folder.iterdir()))
        captions = model.embed_texts(draw_captions(QUERIES, seed=102))
    cases.append(measure("images by images", images[count:], images[:count]))
    cases.append(measure("images by captions", captions, images[:count]))


def directions(count: int, dim: int, seed: int) -> Rows:
    """Random unit rows."""
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    options = parser.parse_args()
    load, cases = os.getloadavg(), []
    embedded(options.bundle, options.images, cases)
    cases.append(measure("random directions", directions(200, RANDOM[1], 1), directions(*RANDOM, 2)))
    write_result("dtypes", {**conditions(load), "bundle": options.bundle.name, "cases": cases})


if __name__ == "__main__":
    main()
