"""The folder that a job writes: shards, errors and the ledger, consistent whenever the process dies.

::

    ledger.jsonl                         see `ledger`
    errors.jsonl                         {"item": …, "id": …, "reason": …} for each item that has no row
    embeddings/part-000000.parquet …     the rows of the items of a shard, in order

A shard is written in this order: its errors, its files (each under a temporary name, then renamed), the line in the
ledger. What the ledger does not list is removed at the next start, and computed again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.ledger import LEDGER_NAME, Ledger, ShardRecord, open_ledger
from align_serving.embed.shard_files import FORMATS, OURS, shard_stem, sync_folder, write_whole

ERRORS_NAME, ROWS_NAME = "errors.jsonl", "embeddings"
RESTORE = "restore it, or embed into another output"


@dataclass(frozen=True)
class ItemError:
    """Why an item has no row: its position among all items, its id, and the reason."""

    item: int
    id: str
    reason: str

    def line(self) -> bytes:
        return json.dumps({"item": self.item, "id": self.id, "reason": self.reason}).encode() + b"\n"


@dataclass(frozen=True)
class Shard:
    """Items that were embedded together.

    Attributes:
        items: their number.
        ids: of the rows.
        rows: float32 (len(ids), dim), of unit length.
        errors: of the items without a row.
        digest: of the items, see `ItemsDigest`.
    """

    items: int
    ids: Sequence[str]
    rows: NDArray[np.float32]
    errors: Sequence[ItemError]
    digest: str


class Output:
    """An open folder of embeddings; see `open_output`."""

    def __init__(self, folder: Path, ledger: Ledger, metadata: Mapping[str, str]) -> None:
        assert ledger.job is not None
        self.ledger = ledger
        self._lock = threading.Lock()  # a second signal may end the job while a thread writes
        self._closed = False
        self._rows = folder / ROWS_NAME
        self._encoding = ENCODINGS[ledger.job["dtype"]]
        self._make = FORMATS[ledger.job["format"]]
        self._metadata = metadata
        self._rows.mkdir(exist_ok=True)
        self._remove_unlisted()
        self._errors = os.open(folder / ERRORS_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._remove_unlisted_errors()
        sync_folder(folder)

    @property
    def items(self) -> int:
        """The number of items that are done."""
        return sum(shard.items for shard in self.ledger.shards)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.ledger.shards)

    def commit(self, shard: Shard) -> None:
        """Adds `shard`; what it holds is on the disk when this returns.

        Raises:
            OSError: it cannot be written; the folder is then as a killed process leaves it.
        """
        with self._lock:
            if not self._closed:
                self._commit(shard)

    def _commit(self, shard: Shard) -> None:
        stem = shard_stem(len(self.ledger.shards))
        files = {}
        errors_end = self._errors_end + self.add_errors(shard.errors)
        for file in self._make(shard.ids, self._encoding.encode(shard.rows), self._metadata):
            name = stem + file.suffix
            files[name] = write_whole(self._rows / name, file.write)
        sync_folder(self._rows)
        self.ledger.add_shard(ShardRecord(shard.items, len(shard.ids), errors_end, shard.digest, files))

    def add_errors(self, errors: Sequence[ItemError]) -> int:
        """Appends `errors`, which count when the ledger lists their shard; returns their size in bytes."""
        lines = b"".join(error.line() for error in errors)
        left = lines
        while left:
            left = left[os.write(self._errors, left) :]
        if lines:
            os.fsync(self._errors)
        return len(lines)

    def close(self) -> None:
        """Waits for a shard that is being written; later ones are not."""
        with self._lock:
            self._closed = True
            os.close(self._errors)

    @property
    def _errors_end(self) -> int:
        return self.ledger.shards[-1].errors_end if self.ledger.shards else 0

    def _remove_unlisted(self) -> None:
        """Removes what a killed process left, and checks that what it finished is there.

        Raises:
            ConfigurationError: a listed file is missing or has another size.
        """
        listed = {name: size for shard in self.ledger.shards for name, size in shard.files.items()}
        for path in self._rows.iterdir():
            if path.name not in listed and OURS.fullmatch(path.name):
                path.unlink()
        for name, size in listed.items():
            path = self._rows / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                problem = "is missing" if found is None else f"has {found} bytes, expected {size}"
                raise ConfigurationError(f"{path} {problem}; {RESTORE}")

    def _remove_unlisted_errors(self) -> None:
        size = os.fstat(self._errors).st_size
        if size < self._errors_end:
            raise ConfigurationError(f"{ERRORS_NAME} has {size} bytes, expected {self._errors_end}; {RESTORE}")
        os.ftruncate(self._errors, self._errors_end)


@contextmanager
def open_output(folder: Path, job: dict[str, Any], metadata: Mapping[str, str]) -> Iterator[Output]:
    """The folder of `job`: new, or begun by an earlier process with the same job.

    Args:
        job: what the rows depend on, in JSON values.
        metadata: texts that are stored with the rows.

    Raises:
        ConfigurationError: another process writes into it, it belongs to another job, or it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; take another output")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LEDGER_NAME).exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} holds something else than embeddings; take a new or empty folder")
    with open_ledger(folder) as ledger:
        if ledger.job is None:
            ledger.begin(job)
        elif ledger.job != job and not ledger.shards:  # a call that failed before it had done anything binds nothing
            ledger.clear()
            ledger.begin(job)
        elif ledger.job != job:
            raise ConfigurationError(f"{folder} was begun with {_difference(ledger.job, job)}; take another output")
        output = Output(folder, ledger, metadata)
        try:
            yield output
        finally:
            output.close()


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first value that differs, before and now."""
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            pairs = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
            if not pairs:
                return f"{len(old)} {key}, now there are {len(new)}"
            old, new = pairs[0]
            key = f"other {key}:"
        return f"{key} {shortened(old)}, now it is {shortened(new)}"
    raise AssertionError("the jobs are equal")
