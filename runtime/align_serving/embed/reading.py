"""Reads a folder of embeddings back, shard by shard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError
from align_serving.embed.arrow import import_pyarrow
from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.ledger import ShardRecord, read_ledger
from align_serving.embed.output import ROWS_NAME


@dataclass(frozen=True)
class StoredEmbeddings:
    """The rows of a folder that ``align-embed`` wrote; see `open_embeddings`.

    Attributes:
        job: what they depend on: ``bundle`` (sha256 of its manifest), ``kind``, ``dtype``, ``embedding_dim``, …
        complete: whether all inputs are embedded.
    """

    folder: Path
    job: dict[str, Any]
    records: tuple[ShardRecord, ...]
    complete: bool

    @property
    def rows(self) -> int:
        return sum(record.rows for record in self.records)

    def stored(self) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Ids and rows of each shard as they are stored: (n, width) in the type of ``--dtype``.

        Raises:
            ConfigurationError: a file is missing, or is not as the ledger says.
        """
        read = {"parquet": _read_parquet, "npy": _read_npy}[self.job["format"]]
        for record in self.records:
            try:
                ids, rows = read([self.folder / ROWS_NAME / name for name in record.files])
            except (OSError, ValueError) as reason:  # pyarrow's errors are ValueErrors
                raise ConfigurationError(
                    f"{self.folder}: {', '.join(record.files)} cannot be read: {reason}; restore it"
                ) from None
            if len(ids) != record.rows or len(rows) != record.rows:
                raise ConfigurationError(
                    f"{self.folder}: {', '.join(record.files)} has {len(rows)} rows, expected {record.rows}; restore it"
                )
            yield ids, rows

    def decoded(self) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Ids and rows of each shard as unit rows, float32 (n, embedding_dim), as near as their type has them."""
        encoding = ENCODINGS[self.job["dtype"]]
        for ids, rows in self.stored():
            yield ids, encoding.decode(rows, self.job["embedding_dim"])


def open_embeddings(folder: Path) -> StoredEmbeddings:
    """The embeddings in `folder`, those of finished shards; a job may still be writing others.

    Raises:
        ConfigurationError: `folder` was not written by ``align-embed`` of this version.
    """
    ledger = read_ledger(folder)
    assert ledger.job is not None
    return StoredEmbeddings(folder, ledger.job, tuple(ledger.shards), ledger.complete)


def _read_parquet(paths: list[Path]) -> tuple[list[str], NDArray[Any]]:
    _, parquet = import_pyarrow()
    (path,) = paths
    table = parquet.ParquetFile(path).read()
    embeddings = table.column("embedding").combine_chunks()
    values = embeddings.flatten().to_numpy(zero_copy_only=False)
    return table.column("id").to_pylist(), values.reshape(len(table), embeddings.type.list_size)


def _read_npy(paths: list[Path]) -> tuple[list[str], NDArray[Any]]:
    ids, rows = paths
    return json.loads(ids.read_text(encoding="utf-8")), np.load(rows, allow_pickle=False)
