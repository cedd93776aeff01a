"""Shards: files of ids and embeddings, as Parquet or as npy, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from align_serving.embed.arrow import import_pyarrow

PARTIAL = ".partial"
OURS = re.compile(r"part-\d{6,}\.(parquet|npy|ids\.json)(\.partial)?")
METADATA_PREFIX = "align."
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK)  # what some file systems say


class ShardFile(NamedTuple):
    """A file of a shard: its suffix, and what writes its content."""

    suffix: str
    write: Callable[[Path], None]


def _parquet(ids: Sequence[str], rows: NDArray[Any], metadata: Mapping[str, str]) -> list[ShardFile]:
    """Columns ``id`` and ``embedding`` (``fixed_size_list``), with `metadata` in the schema."""
    arrow, parquet = import_pyarrow()
    values = arrow.array(rows.reshape(-1))
    embeddings = arrow.FixedSizeListArray.from_arrays(values, rows.shape[1])
    schema = arrow.schema(
        [arrow.field("id", arrow.string(), nullable=False), arrow.field("embedding", embeddings.type, nullable=False)],
        metadata={f"{METADATA_PREFIX}{key}": value for key, value in metadata.items()},
    )
    table = arrow.Table.from_arrays([arrow.array(ids, arrow.string()), embeddings], schema=schema)

    def write(path: Path) -> None:
        # Ids compress well; embeddings do not, and have no values in common that a dictionary could hold.
        with path.open("wb") as file:
            parquet.write_table(table, file, compression={"id": "zstd"}, use_dictionary=False)

    return [ShardFile(".parquet", write)]


def _npy(ids: Sequence[str], rows: NDArray[Any], metadata: Mapping[str, str]) -> list[ShardFile]:
    """The rows as an array, and the ids beside it as a JSON list. The metadata is in the ledger alone."""
    del metadata

    def write_rows(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, rows, allow_pickle=False)

    def write_ids(path: Path) -> None:
        path.write_text(json.dumps(list(ids), ensure_ascii=False), encoding="utf-8")

    return [ShardFile(".ids.json", write_ids), ShardFile(".npy", write_rows)]


FORMATS: dict[str, Callable[[Sequence[str], NDArray[Any], Mapping[str, str]], list[ShardFile]]] = {
    "parquet": _parquet,
    "npy": _npy,
}


def shard_stem(number: int) -> str:
    """The name of the files of a shard, without suffix."""
    return f"part-{number:06d}"


def write_whole(path: Path, write: Callable[[Path], None]) -> int:
    """Writes a file to the name `PARTIAL`, waits until it is on the disk, and renames it; returns its size in bytes."""
    partial = path.with_name(path.name + PARTIAL)
    write(partial)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    os.replace(partial, path)  # noqa: PTH105  (so that tests find every step in os)
    return size


def sync_folder(folder: Path) -> None:
    """Waits until the names in `folder` are on the disk, where the file system can do that for a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
