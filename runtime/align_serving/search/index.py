"""Finds the rows of a folder of embeddings that are nearest to queries."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError
from align_runtime.folder_exchange import finish_interrupted
from align_runtime.progress import Progress
from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.reading import StoredEmbeddings
from align_serving.search import building
from align_serving.search.approximate import EXACT, Approximate
from align_serving.search.faiss_import import import_faiss
from align_serving.search.image_places import ImagePlace
from align_serving.search.index_files import (
    IDS,
    INDEX_NAME,
    SOURCES,
    IndexFacts,
    binding,
    index_folder,
    read_facts,
    whole_facts,
)
from align_serving.search.strings import Strings

RECALL_QUERIES, RECALL_AT = 256, 10

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """A row that was found.

    Attributes:
        row: its number in the embeddings, from 0.
        score: cosine with the query.
        source: what it stands for: the text, or the path of the file with the image; None where that was not found.
    """

    row: int
    id: str
    score: float
    source: str | None


class Index:
    """An open index; see `open_index`. Any number of threads may search it."""

    def __init__(self, stored: StoredEmbeddings, folder: Path, facts: IndexFacts) -> None:
        self.stored = stored
        self.facts = facts
        self._rows = building.open_rows(folder, facts.dtype, facts.rows, facts.embedding_dim)
        self._decode = ENCODINGS[facts.dtype].decode
        self._ids, self._sources = Strings(folder / IDS, facts.rows), Strings(folder / SOURCES, facts.rows)
        self._approximate = None if facts.kind == EXACT else Approximate(facts.kind, folder)

    def __len__(self) -> int:
        return self.facts.rows

    @property
    def kind(self) -> str:
        """``images`` or ``texts``."""
        return str(self.stored.job["kind"])

    def search(self, queries: Rows, count: int) -> list[list[Hit]]:
        """The `count` nearest rows of each query, the nearest first; fewer where there are fewer.

        Args:
            queries: unit rows, float32 (n, embedding_dim).
        """
        count = min(count, len(self))
        search = self.exact if self._approximate is None else self.approximate
        return [
            [self._hit(int(row), float(score)) for row, score in zip(*found, strict=True) if row >= 0]
            for found in zip(*search(queries, count), strict=True)
        ]

    def row(self, number: int) -> Rows:
        """A row as a query, float32 (1, embedding_dim)."""
        return self._decode(self._rows[number : number + 1], self.facts.embedding_dim)

    def source(self, number: int) -> str | None:
        """See `Hit.source`."""
        if self.kind == "images":
            place = self.image(number)
            return None if place is None else place.path
        return self._sources[number].decode() or None

    def image(self, number: int) -> ImagePlace | None:
        """Where the image of a row of images lies; None where that was not found."""
        value = self._sources[number]
        return ImagePlace.from_bytes(value) if value else None

    def exact(self, queries: Rows, count: int) -> tuple[NDArray[np.int64], Rows]:
        """Numbers and scores (n, count) of the nearest rows, block by block."""
        faiss, dim = import_faiss(), self.facts.embedding_dim
        queries = np.ascontiguousarray(queries, np.float32)
        best_rows = np.full((len(queries), 0), -1, np.int64)
        best_scores = np.empty((len(queries), 0), np.float32)
        step = building.block_rows(dim)
        for start in range(0, len(self), step):
            block = np.ascontiguousarray(self._decode(self._rows[start : start + step], dim))
            scores, rows = faiss.knn(queries, block, min(count, len(block)), faiss.METRIC_INNER_PRODUCT)
            best_rows, best_scores = _best(
                np.hstack([best_rows, rows + start]), np.hstack([best_scores, scores]), count
            )
        return best_rows, best_scores

    def approximate(self, queries: Rows, count: int) -> tuple[NDArray[np.int64], Rows]:
        """As `exact`, of the rows that an approximate index proposes; -1 where it has too few."""
        assert self._approximate is not None
        rows = self._approximate.proposed(queries, count)
        decoded = self._decode(self._rows[np.maximum(rows, 0).ravel()], self.facts.embedding_dim)
        scores = np.einsum("qd,qrd->qr", queries, decoded.reshape(*rows.shape, -1))
        return _best(rows, np.where(rows < 0, -np.inf, scores), count)

    def _hit(self, row: int, score: float) -> Hit:
        return Hit(row, self._ids[row].decode("utf-8", "surrogatepass"), score, self.source(row))


def _best(rows: NDArray[np.int64], scores: Rows, count: int) -> tuple[NDArray[np.int64], Rows]:
    """The `count` highest scores of each query, of equal ones the rows that come first."""
    order = np.lexsort((rows, -scores), axis=1)[:, :count]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1).astype(np.float32)


def recall(index: Index) -> float:
    """The share of the 10 nearest rows of some rows, themselves left out, that an approximate index finds."""
    numbers = np.linspace(0, len(index) - 1, min(RECALL_QUERIES, len(index))).astype(np.int64)
    queries = np.vstack([index.row(int(number)) for number in numbers])
    wanted = min(RECALL_AT + 1, len(index))
    exact, _ = index.exact(queries, wanted)
    found, _ = index.approximate(queries, wanted)
    shares = [
        len((set(a) & set(b)) - {n}) / max(len(set(a) - {n}), 1)
        for n, a, b in zip(numbers.tolist(), exact.tolist(), found.tolist(), strict=True)
    ]
    return float(np.mean(shares))


def open_index(
    stored: StoredEmbeddings, kind: str, progress: Progress, anew: bool = False, parent: Path | None = None
) -> Index:
    """The index `kind` of `stored`, which is built where there is none of its present rows, or `anew`.

    What killed processes left of it is finished or removed.

    Args:
        parent: where it is kept; None for the folder of the embeddings.

    Raises:
        ConfigurationError: as in `building.build_index`, or its files are not whole.
        BackendUnavailableError: faiss is not installed.
    """
    import_faiss()
    folder = index_folder(stored, kind, parent)
    with suppress(OSError):  # where nothing can be written, nothing can be finished
        finish_interrupted(folder, INDEX_NAME, lambda: whole_facts(folder) is not None)
    facts = None if anew else read_facts(folder)
    if facts is None or facts.binding != binding(stored):
        building.build_index(stored, kind, folder, progress, lambda new, facts: recall(Index(stored, new, facts)))
    facts = whole_facts(folder)
    if facts is None:
        raise ConfigurationError(f"{folder} is not whole; remove it, it is built again")
    return Index(stored, folder, facts)
