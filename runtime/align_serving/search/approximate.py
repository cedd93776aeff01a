"""Approximate indexes of faiss: ``--index``. They propose rows, which are then scored exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_serving.search.faiss_import import import_faiss

EXACT = "exact"
FILE_NAME = "approximate.faiss"
LINKS, BUILD_BREADTH = 32, 128  # of HNSW
TRAINING_ROWS_PER_LIST = 64  # faiss asks for 39 at least
MAX_TRAINING_ROWS = 1 << 18
PROPOSED = 4  # times as many rows as are wanted are proposed, and scored exactly
LEAST_PROPOSED = 64

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Approximation:
    """A kind of index.

    Attributes:
        begin: an empty index for `count` rows, float32 of `dim` components, trained with some of them.
        widen: sets how much of the index is searched for `wanted` rows.
        mapped: whether its file stays on the disk and is read when it is used.
    """

    begin: Callable[[int, int, Rows], Any]
    widen: Callable[[Any, int], None]
    mapped: bool


def _begin_hnsw(count: int, dim: int, training: Rows) -> Any:
    del count, training
    faiss = import_faiss()
    index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_BREADTH
    return index


def _widen_hnsw(index: Any, wanted: int) -> None:
    index.hnsw.efSearch = max(2 * wanted, 128)


def _begin_ivf(count: int, dim: int, training: Rows) -> Any:
    faiss = import_faiss()
    lists = number_of_lists(count)
    quantizer = faiss.IndexFlatIP(dim)
    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, kind, faiss.METRIC_INNER_PRODUCT)
    quantizer.this.disown()
    index.own_fields = True
    index.cp.seed = 1  # of k-means
    index.cp.min_points_per_centroid = 1  # faiss would print a warning of its own
    index.train(training)
    return index


def _widen_ivf(index: Any, wanted: int) -> None:
    del wanted
    index.nprobe = min(index.nlist, max(16, index.nlist // 32))


def number_of_lists(count: int) -> int:
    """Lists of an IVF index of `count` rows: four times the root, as faiss recommends, as far as k-means has rows."""
    return max(1, min(4 * math.isqrt(count), training_rows(count) // TRAINING_ROWS_PER_LIST))


def training_rows(count: int) -> int:
    """How many of `count` rows an index is trained with; bounded, as they are in memory."""
    return min(count, MAX_TRAINING_ROWS)


APPROXIMATIONS = {
    "hnsw": Approximation(_begin_hnsw, _widen_hnsw, mapped=False),
    "ivf-sq8": Approximation(_begin_ivf, _widen_ivf, mapped=True),
}


def write_approximate(kind: str, folder: Path, count: int, training: Rows, blocks: Iterable[Rows]) -> None:
    """Writes the index `kind` of all rows of `blocks` into `folder`."""
    faiss = import_faiss()
    index = APPROXIMATIONS[kind].begin(count, training.shape[1], training)
    for block in blocks:
        index.add(np.ascontiguousarray(block))
    faiss.write_index(index, str(folder / FILE_NAME))


class Approximate:
    """An index that was written by `write_approximate`."""

    def __init__(self, kind: str, folder: Path) -> None:
        faiss = import_faiss()
        self._kind = APPROXIMATIONS[kind]
        self._index = faiss.read_index(str(folder / FILE_NAME), faiss.IO_FLAG_MMAP if self._kind.mapped else 0)

    def proposed(self, queries: Rows, wanted: int) -> NDArray[np.int64]:
        """Rows (n, some) that may be among the `wanted` nearest of each query; -1 where there are no more."""
        count = min(max(PROPOSED * wanted, LEAST_PROPOSED), self._index.ntotal)
        self._kind.widen(self._index, count)
        return self._index.search(np.ascontiguousarray(queries), count)[1]
